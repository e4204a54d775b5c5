"""Profile training steps of `train.py` on one GPU, as a table of kernels.

    python bench/profile_training.py [--size 7B] [--num-queries 8] [KEY=VALUE ...]

Kernels are classified by their names; the GPU is idle where none runs.
"""

from __future__ import annotations

import argparse

from kernels import profile_table, read_trace
from profile_inputs import add_arguments, prepared
from train_ours import run_training, training_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_arguments(parser)
    parser.add_argument("--num-queries", type=int, default=8)
    parser.add_argument("--num-steps", type=int, default=4)
    arguments = parser.parse_args()
    inputs = prepared(arguments, num_examples=512, num_documents=4096)
    trace = inputs.folder / "trace.json"
    settings = {"path": trace, "num_warm_up": 8, "num_steps": arguments.num_steps}
    overrides = [
        "model.compile=true",
        "data.num_workers=2",
        "+callbacks.profiler._target_=lightning_profiler.LightningProfiler",
        *(f"+callbacks.profiler.{key}={value}" for key, value in settings.items()),
        *arguments.overrides,
    ]
    command = training_command(
        model=inputs.model,
        texts=inputs.texts,
        run=inputs.folder / "run",
        num_queries=arguments.num_queries,
        overrides=overrides,
    )
    run_training(command)
    print(profile_table(read_trace(trace), num_steps=arguments.num_steps))


if __name__ == "__main__":
    main()
