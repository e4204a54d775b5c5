"""Time `train.py experiment=sft_msmarco` as a user types it, in complete optimizer steps.

    python bench/train_study.py --model FOLDER --texts FOLDER --work FOLDER [KEY=VALUE ...]

The script adds the overrides and a clock, which ends the command after the last step. With
--compare-last-layer it times as many steps with and without the pooled last layer, in turns.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from result_line import hand_over, num_matrix_weights
from study_command import run_command, study_command
from train_ours import clock_callback

LAST_LAYER = "last_layer_clock.LastLayerClock"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="for runs and the cache")
    parser.add_argument("--limit-gib", type=float, help="of the GPU's memory")
    parser.add_argument("--num-warm-up", type=int, default=1)
    parser.add_argument("--num-steps", type=int, default=3)
    parser.add_argument("--saves", action="store_true", help="time a checkpoint, too")
    parser.add_argument("--compare-last-layer", action="store_true")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    run = Path(tempfile.mkdtemp(prefix="study_", dir=arguments.work)) / "run"
    clock = run.parent / "clock.json"
    num_steps = arguments.num_warm_up + arguments.num_steps
    numbers = {
        "num_warm_up": arguments.num_warm_up,
        "num_steps": arguments.num_steps,
        "num_steps_per_window": 1,
        "saves_checkpoint": arguments.saves,
    }
    callback = clock_callback(clock, numbers)
    if arguments.compare_last_layer:
        num_steps = 2 * (1 + arguments.num_steps)
        callback = clock_callback(clock, {"num_steps": arguments.num_steps}, clock=LAST_LAYER)
    command = study_command(
        "train.py",
        "experiment=sft_msmarco",
        "model=qwen-instruct",
        f"data.path={arguments.texts / 'train.jsonl'}",
        "benchmark=none",
        f"trainer.max_steps={num_steps}",
        *arguments.overrides,
        *callback,
        model=arguments.model,
        run=run,
        limit_gib=arguments.limit_gib,
    )
    hand_over({"flop_per_token": 4 * num_matrix_weights(arguments.model)})
    run_command(command, work=arguments.work, run=run)
    hand_over(json.loads(clock.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
