r"""Measure the study's commands on several GPUs of one machine; write JSON and tables.

    python bench/many_gpus.py --devices 1,2 --tokenizer DIR                  (= make bench-gpus)
    python bench/many_gpus.py --devices 1,2,4,8 --only lora_ddp,encoding --budget-s 500 \
        --work DIR --results DIR --tokenizer DIR
    python bench/many_gpus.py --scale tiny                        (two ranks on a CPU)

Rows are those of `many_gpus_rows.py`; each training is `python train.py experiment=sft_msmarco
model=qwen-instruct ...` as a user types it, plus what the row states and a clock. One GPU is
measured with what `auto` chose on many, stated ("equal settings"), and with its own `auto`. Parts
that need one GPU run side by side. The result is bench/results/many_gpus_DATE_DEVICE.json; later
calls of that day add to it. A row that fails, or has no GPUs or time, has the reason. Without git,
QUARRY_COMMIT names the commit.

Then, in the checkout, into docs/many_gpus.json and docs/distributed.md:

    python bench/many_gpus_page.py --add bench/results/many_gpus_DATE_DEVICE.json
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

from many_gpus_rows import ManyGpusRows
from many_gpus_table import tables
from measurements import NUM_CPU_RANKS, SCALES, Measurement
from runner import BENCH, Runner, choose, look, measure, opened, say, scratch
from study import NUM_TEST_QUERIES, about


def numbers(text: str) -> tuple[int, ...]:
    """Return numbers of GPUs, ascending, each once.

    Raises:
        ValueError: one of them is below 1.
    """
    found = tuple(sorted({int(part) for part in text.split(",")}))
    if found[0] < 1:
        raise ValueError(f"--devices={text}: numbers of GPUs must be at least 1.")
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--devices", type=numbers, default=(1, 2), help="numbers of GPUs")
    parser.add_argument("--only", help="names of rows, with commas between")
    parser.add_argument("--budget-s", type=float, default=7200, help="begin nothing after that")
    parser.add_argument("--tokenizer", type=Path, help="a folder; without it a stand-in")
    parser.add_argument("--scale", choices=SCALES, default="full", help="tiny: does it run at all?")
    parser.add_argument("--results", type=Path, default=BENCH / "results")
    parser.add_argument("--work", type=Path, help="for models and texts; kept for the next call")
    return parser.parse_args()


def main() -> None:
    start = time.perf_counter()
    arguments = _arguments()
    scale, is_tiny = SCALES[arguments.scale], arguments.scale == "tiny"

    def rows(*, has_gpu: bool, num_gpus: int) -> list[Measurement]:
        made = ManyGpusRows(
            scale=scale,
            devices=arguments.devices,
            is_tiny=is_tiny,
            has_gpu=has_gpu,
            num_gpus=num_gpus,
        ).measurements()
        return choose(arguments.only, made, what="row")

    rows(has_gpu=False, num_gpus=NUM_CPU_RANKS)  # an unknown name ends it here
    work = (arguments.work or scratch()).resolve()
    for folder in (work, arguments.results):
        folder.mkdir(parents=True, exist_ok=True)
    runner = Runner(
        work=work,
        log=work / "bench.log",
        scale=scale,
        tokenizer=arguments.tokenizer,
        num_test_queries=NUM_TEST_QUERIES,
    )
    try:
        machine = look(runner)
        path, content = opened(
            arguments.results,
            machine,
            scale=arguments.scale,
            script=Path(__file__).name,
            prefix="many_gpus_",
        )
        runner.log = path.with_suffix(".log")
        runner.about = about(content["runs"][-1])
        places = machine["num_gpus"] if machine["has_gpu"] else NUM_CPU_RANKS
        chosen = rows(has_gpu=machine["has_gpu"], num_gpus=places)
        deadline = start + arguments.budget_s
        measure(chosen, runner, content, path, deadline=deadline, render=tables)
        say(f"\n{tables(content)}\n{path}")
    finally:
        if arguments.work is None:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
