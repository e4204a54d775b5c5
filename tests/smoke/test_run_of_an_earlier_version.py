"""A run directory that commit 5dd0e46 wrote, under the names of its keys and classes, does all that
one of today does: it is evaluated, resumed, exported, verified, reported and rescored."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.commands import Result
from helpers.earlier_run import Task, copied, tasks

MEASURES = ("nDCG@10", "MRR@10")


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Task]:
    with tasks(tmp_path_factory.mktemp("cache")) as call:
        yield call


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One copy for the tasks that leave a run as it is."""
    return copied(tmp_path_factory.mktemp("asset") / "of_then")


def measured(run: Path) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = json.loads((run / "metrics.json").read_text())["sets"][
        "set"
    ]
    return found


def test_it_is_evaluated_with_its_own_numbers(task: Task, run: Path, tmp_path: Path) -> None:
    task(
        "eval", f"model.path={run}",
        "benchmark=folder", f"benchmark.path={run.parent / 'data/set'}", "benchmark.content=code",
        "evaluation.top_k=20", "evaluation.measures=[nDCG@10,MRR@10]",
        "logger=none", f"paths.run_dir={tmp_path / 'eval'}",
    )  # fmt: skip
    found = measured(tmp_path / "eval")
    assert found["dense"] == pytest.approx(measured(run)["trained"], abs=1e-6)


def test_it_is_resumed_to_the_end_that_it_had(
    task: Task, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    resumed = copied(tmp_path / "resumed")
    expected = measured(resumed)["trained"]
    for path in ("metrics.json", "summary.json", "model"):  # of its own end
        shutil.rmtree(resumed / path) if path == "model" else (resumed / path).unlink()
    task("train", "task=resume", f"run={resumed}")
    assert measured(resumed)["trained"] == pytest.approx(expected, abs=1e-6)
    for what in ("do not lock their run directory", "does not say which training data"):
        assert [what in record.getMessage() for record in caplog.records].count(True) == 1
    curve = json.loads((resumed / "learning_curve.json").read_text())["evaluations"]
    assert [step for step, _ in curve] == [0, 2, 4, 6]


def test_it_is_exported_and_the_export_verified(task: Task, run: Path) -> None:
    task("train", "task=export", f"run={run}")
    cosines = task("eval", "task=verify", f"run={run}")
    assert set(cosines) == {"verify/quarry", "verify/sentence-transformers"}
    assert min(cosines.values()) > 0.999999


def test_a_run_of_today_with_its_settings_is_another_seed_of_the_same_row(
    task: Task, command: Callable[..., Result], run: Path, tmp_path: Path
) -> None:
    """A real command: which options it chose is a part of its record."""
    today = tmp_path / "today"
    result = command(
        "train.py", f"model.path={run.parent / 'base'}", "model/adapter=lora", "model.adapter.r=4",
        "model.adapter.alpha=8", "data=jsonl", f"data.path={run.parent / 'data/train.jsonl'}",
        "data.num_hard_negatives=2", "data.global_batch_size=8", "loss.contrastive_batch_size=8",
        "optimizer.lr=0.01", "scheduler.num_warmup_steps=1", "trainer.max_steps=6",
        "benchmark=folder", f"benchmark.path={run.parent / 'data/set'}", "benchmark.content=code",
        "evaluation.top_k=20", "evaluation.measures=[nDCG@10,MRR@10]", "evaluation.every_n_steps=0",
        "logger=none", "trainer.accelerator=cpu", "seed=43", f"hydra.run.dir={today}",
    )  # fmt: skip
    assert result.code == 0, result.err
    folder = tmp_path / "report"
    task("eval", "task=report", f"runs=[{run},{today}]", f"task.folder={folder}")
    with (folder / "values.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["stage"] == "supervised"]
    assert {row["model"]: row["num_seeds"] for row in rows} == {"bm25": "1", "qwen-tiny": "2"}


def test_it_is_rescored_with_its_own_numbers(task: Task, run: Path) -> None:
    task("eval", "task=rescore", f"run={run}")
    for name, expected in measured(run).items():
        found = json.loads((run / "rescore.json").read_text())[name]["set"]
        assert found["as_run"] == expected
        assert found["by_convention"]["beir"] == pytest.approx(expected, abs=1e-9)
