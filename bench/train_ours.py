"""Time LoRA training by `train.py`, with a callback that reads the clock.

    python bench/train_ours.py --model FOLDER --texts FOLDER --work FOLDER [KEY=VALUE ...]

All time between optimizer steps counts: data, Lightning and loggers included.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from result_line import Result, hand_over, num_matrix_weights

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent


def training_command(
    *,
    model: Path,
    texts: Path,
    run: Path,
    num_queries: int,
    benchmark: str = "none",
    adapter: str = "lora",
    overrides: Sequence[str] = (),
) -> list[str]:
    """Return a user's command: LoRA on a folder, no prompt, 16 passages a query."""
    return [
        sys.executable, str(ROOT / "train.py"),
        "model=local", f"model.path={model}", f"model/adapter={adapter}", "prompt=none",
        "data=jsonl", f"data.path={texts / 'train.jsonl'}", "data.num_hard_negatives=15",
        f"data.global_batch_size={num_queries}", "trainer.max_epochs=-1",
        "trainer.max_steps=10000", f"benchmark={benchmark}", "logger=csv",
        f"paths.cache_dir={run.parent / 'cache'}", f"hydra.run.dir={run}", *overrides,
    ]  # fmt: skip


def clock_overrides(path: Path, **numbers: int) -> list[str]:
    """Return the overrides that add the clock, with logging at each of its windows.

    Args:
        numbers: arguments of `lightning_clock.LightningClock`.
    """
    every = f"trainer.log_every_n_steps={numbers['num_steps_per_window']}"
    return [every, *clock_callback(path, numbers)]


def clock_callback(
    path: Path, numbers: Mapping[str, int | bool], *, clock: str = "lightning_clock.LightningClock"
) -> list[str]:
    """Return the overrides that add the clock, which ends training after writing its result."""
    settings = {"path": path, **numbers}
    return [
        f"+callbacks.clock._target_={clock}",
        *(f"+callbacks.clock.{key}={value}" for key, value in settings.items()),
    ]


def run_training(command: Sequence[str]) -> None:
    """Run the command with this folder's callbacks importable; exit with its code if it fails."""
    path = [str(BENCH), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))}
    ended = subprocess.run(command, check=False, env=environment, stdin=subprocess.DEVNULL)
    if ended.returncode:
        sys.exit(ended.returncode)


def logged(run: Path) -> Result:
    """Return the median of the Throughput callback's rates, without the first interval."""
    (file,) = run.glob("csv/**/metrics.csv")
    with file.open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    rates = [float(row["perf/tokens_per_s"]) for row in rows if row.get("perf/tokens_per_s")]
    return {"logged_tokens_per_s": statistics.median(rates[1:])} if len(rates) > 1 else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="for runs and the cache")
    parser.add_argument("--num-queries", type=int, default=8)
    parser.add_argument("--num-warm-up", type=int, default=6)
    parser.add_argument("--num-steps", type=int, default=24)
    parser.add_argument("--num-steps-per-window", type=int, default=4)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    run = Path(tempfile.mkdtemp(prefix="train_", dir=arguments.work)) / "run"
    clock = run.parent / "clock.json"
    overrides = [
        *clock_overrides(
            clock,
            num_warm_up=arguments.num_warm_up,
            num_steps=arguments.num_steps,
            num_steps_per_window=arguments.num_steps_per_window,
        ),
        *arguments.overrides,
    ]
    run_training(
        training_command(
            model=arguments.model,
            texts=arguments.texts,
            run=run,
            num_queries=arguments.num_queries,
            overrides=overrides,
        )
    )
    result = json.loads(clock.read_text(encoding="utf-8"))
    hand_over(result | logged(run) | {"flop_per_token": 4 * num_matrix_weights(arguments.model)})


if __name__ == "__main__":
    main()
