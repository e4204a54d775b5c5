"""Measure speed and memory on this machine, each in its own process; write JSON and a table.

    python bench/run.py                                          (= make bench)
    python bench/run.py --only train_7b,encode_7b --budget-s 500
    python bench/run.py --data BEIR_DIR                          (encoding on a CPU, too)

The result is bench/results/DATE_DEVICE.json, with a table (.md) and the processes' output (.log)
beside it. A second call on the same day and device adds to it. A part that fails, runs out of
memory or takes too long has the reason in its row.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

from measurements import SCALES, measurements
from runner import BENCH, Runner, choose, look, measure, opened, say, scratch
from table import table


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", help="names of measurements, with commas between")
    parser.add_argument("--budget-s", type=float, default=3600, help="begin nothing after that")
    parser.add_argument("--data", type=Path, help="a BEIR folder, to encode its corpus on the CPU")
    parser.add_argument("--scale", choices=SCALES, default="full", help="tiny: does it run at all?")
    parser.add_argument("--results", type=Path, default=BENCH / "results")
    parser.add_argument("--work", type=Path, help="for models and texts; kept for the next call")
    return parser.parse_args()


def main() -> None:
    start = time.perf_counter()
    arguments = _arguments()
    scale = SCALES[arguments.scale]
    choose(arguments.only, measurements(scale, has_gpu=False))
    work = arguments.work or scratch()
    for folder in (work, arguments.results):
        folder.mkdir(parents=True, exist_ok=True)
    log = work / "bench.log"
    runner = Runner(work=work, log=log, data=arguments.data, scale=scale)
    try:
        machine = look(runner)
        path, content = opened(
            arguments.results, machine, scale=arguments.scale, script=Path(__file__).name
        )
        runner.log = path.with_suffix(".log")
        chosen = choose(arguments.only, measurements(scale, has_gpu=machine["has_gpu"]))
        measure(chosen, runner, content, path, deadline=start + arguments.budget_s)
        say(f"\n{table(content)}\n{path}")
    finally:
        if arguments.work is None:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
