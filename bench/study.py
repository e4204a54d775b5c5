r"""Measure the study's own commands, each in its own processes; write JSON and a table.

    python bench/study.py --tokenizer DIR                        (= make bench-study)
    python bench/study.py --only recipe,recipe_fp8 --budget-s 500 --work DIR --tokenizer DIR
    python bench/study.py --only fp8_trained --trained MODEL_DIR --data BEIR_DIR

A training row is `python train.py experiment=sft_msmarco model=qwen-instruct ...` as a user types
it, plus the row's overrides and a clock. The row stores the command, its commit, and the choices of
`auto`. Rows of sentence-transformers are beside them. The result is
bench/results/study_DATE_DEVICE.json; later calls of that day add to it. A row that fails, runs out
of memory or of time has the reason. Without git, QUARRY_COMMIT names the commit.

The rows `encoding`, `encoding_fp8`, `encoding_sentence_transformers` and `training_last_layer`
measure the gains of the shared prefix and the pooled last layer. They need --tokenizer: the
stand-in's vocabulary lacks the words of templates.

Then, in the checkout:

    python bench/page.py --add bench/results/study_DATE_DEVICE.json    (into docs/performance.json)
    make docs                                                          (the pages, from that file)

A missed target refers to a profile whose title begins as `study_table.ROWS` says:

    python bench/profile_training.py --num-queries 128 loss.contrastive_batch_size=32 \
        model.adapter.r=32 model.adapter.dropout=0.1 > FILE
    python bench/page.py --profile '`sft_msmarco`, bf16: a contrastive batch=FILE'

The README's other rows come from `python bench/run.py --only
train_7b,train_7b_fp8,encode_7b,train_05b,encode_05b`, and are added in the same way.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path
from typing import Any

from encoding_table import encoding_table
from measurements import SCALES, Measurement
from runner import BENCH, Runner, choose, look, measure, opened, say, scratch
from study_rows import STUDY, StudyRows
from study_table import Content, study_table

NUM_TEST_QUERIES = 300
"""Queries of the BEIR folder that is generated without --data."""


def about(run: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of the call that each row stores."""
    return {
        "commit": (run["git"] or {}).get("commit"),
        "date": run["date"],
        "device": run["device"],
        "torch": run["packages"]["torch"],
    }


def tables(content: Content) -> str:
    return study_table(content) + encoding_table(content)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", help="names of rows, with commas between")
    parser.add_argument("--budget-s", type=float, default=7200, help="begin nothing after that")
    parser.add_argument("--tokenizer", type=Path, help="a folder; without it a stand-in")
    parser.add_argument("--data", type=Path, help="a BEIR folder, for evaluations")
    parser.add_argument("--trained", type=Path, help="a folder with trained weights, for fp8")
    parser.add_argument("--scale", choices=SCALES, default="full", help="tiny: does it run at all?")
    parser.add_argument("--results", type=Path, default=BENCH / "results")
    parser.add_argument("--work", type=Path, help="for models and texts; kept for the next call")
    return parser.parse_args()


def main() -> None:
    start = time.perf_counter()
    arguments = _arguments()
    scale, is_tiny = SCALES[arguments.scale], arguments.scale == "tiny"
    names = StudyRows(scale=scale, is_tiny=is_tiny, has_gpu=False).parts()
    choose(arguments.only, names, what="row")
    work = (arguments.work or scratch()).resolve()
    for folder in (work, arguments.results):
        folder.mkdir(parents=True, exist_ok=True)
    runner = Runner(
        work=work,
        log=work / "bench.log",
        scale=scale,
        data=arguments.data,
        tokenizer=arguments.tokenizer,
        trained=arguments.trained,
        num_test_queries=NUM_TEST_QUERIES,
    )
    try:
        machine = look(runner)
        path, content = opened(
            arguments.results,
            machine,
            scale=arguments.scale,
            script=Path(__file__).name,
            prefix="study_",
        )
        runner.log = path.with_suffix(".log")
        runner.about = about(content["runs"][-1])
        rows = StudyRows(scale=scale, is_tiny=is_tiny, has_gpu=machine["has_gpu"]).parts()
        chosen = Measurement(name=STUDY, parts=tuple(choose(arguments.only, rows, what="row")))
        deadline = start + arguments.budget_s
        measure([chosen], runner, content, path, deadline=deadline, render=tables)
        say(f"\n{tables(content)}\n{path}")
    finally:
        if arguments.work is None:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
