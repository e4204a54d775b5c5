"""Where the time of a training step goes: a profile of `train.py` on one GPU, as a table.

    python bench/profile_training.py [--size 7B] [--num-queries 8] [KEY=VALUE ...]

Each kernel counts for what its name says that it is; where none runs, the GPU waits.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch

from kernels import profile_table, read_trace
from random_model import SIZES, write_model
from texts import write_texts
from train_ours import run_training, training_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="7B")
    parser.add_argument("--num-queries", type=int, default=8)
    parser.add_argument("--num-steps", type=int, default=4)
    parser.add_argument("--work", type=Path, help="as in run.py, whose model and texts it takes")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("Error: the profile is one of kernels, and there is no CUDA device here.")
    work = arguments.work or Path(tempfile.mkdtemp(prefix="quarry-bench-"))
    model, texts = work / f"model_{arguments.size}", work / "texts"
    if not (model / "config.json").exists():
        write_model(model, arguments.size)
    if not (texts / "train.jsonl").exists():
        num_words = min(151_000, SIZES[arguments.size]["vocab_size"] // 2)
        write_texts(texts, num_examples=512, num_documents=1, num_words=num_words)
    run = Path(tempfile.mkdtemp(prefix="profile_", dir=work)) / "run"
    trace = run.parent / "trace.json"
    settings = {"path": trace, "num_warm_up": 8, "num_steps": arguments.num_steps}
    overrides = [
        "model.compile=true",
        "data.num_workers=2",
        "+callbacks.profiler._target_=lightning_profiler.LightningProfiler",
        *(f"+callbacks.profiler.{key}={value}" for key, value in settings.items()),
        *arguments.overrides,
    ]
    command = training_command(
        model=model,
        texts=texts,
        run=run,
        num_queries=arguments.num_queries,
        overrides=overrides,
    )
    run_training(command)
    print(profile_table(read_trace(trace), num_steps=arguments.num_steps))


if __name__ == "__main__":
    main()
