"""`python eval.py task=report`: a study's folder from its run directories, and what is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import wandb_files
from helpers.commands import Result
from helpers.study_runs import a_set, values_of, write_run_directory
from quarry.types import Report

Command = Callable[..., Result]


def job(folder: Path, model: str, quality: float, **convention: str) -> Path:
    """A zero-shot run beside BM25."""
    reports = [
        Report(
            retriever=name,
            results=tuple(
                a_set(s, values_of(value, num_queries=40, seed=seed), convention=convention)
                for s, seed in (("alpha", 11), ("beta", 21))
            ),
        )
        for name, value in (("bm25", 0.3), ("dense", quality))
    ]
    return write_run_directory(folder / model, reports, model=model)


@pytest.fixture(scope="module")
def study(environment: dict[str, str]) -> Path:
    """Below QUARRY_RUNS, where studies are: three jobs, one of which was killed."""
    folder = Path(environment["QUARRY_RUNS"]) / "study" / "specials"
    job(folder, "qwen-base", 0.3)
    job(folder, "qwen-coder", 0.6)
    killed = write_run_directory(folder / "qwen-math", [], model="qwen-math")
    jobs = [{"directory": str(killed), "overrides": [], "status": "killed", "error": "signal 9"}]
    record = {"name": "specials", "fixed": [], "jobs": jobs}
    (folder / "study.json").write_text(json.dumps(record))
    return folder


def test_the_newest_study_is_reported_in_its_own_folder(command: Command, study: Path) -> None:
    result = command("eval.py", "task=report")
    assert result.code == 0, result.err
    folder = study / "report"
    page = (folder / "report.md").read_text()
    assert page.startswith("# Study specials\n")
    assert "qwen-math, alpha, beta, mean: killed: signal 9" in page
    assert f"Report: {folder / 'report.md'}" in result.out
    with (folder / "values.csv").open(newline="") as stream:
        rows = {(row["model"], row["column"]): row for row in csv.DictReader(stream)}
    assert rows["qwen-coder", "mean"]["is_significant"] == "true"
    assert rows["qwen-coder", "mean"]["base"] == "qwen-base"
    assert rows["qwen-math", "mean"]["missing"] == "killed: signal 9"
    value = float(rows["qwen-coder", "mean"]["value"])
    assert f"zero_shot_other/qwen-coder={value:.4f}" in result.last_line
    assert "zero_shot_other/qwen-math=failed" in result.last_line
    assert (folder / "figures" / "zero_shot_other_heat_map.pdf").is_file()


def test_a_training_run_makes_a_report_by_itself(
    command: Command, trained: tuple[Path, Result], tmp_path: Path
) -> None:
    """What a run really leaves: learning curve, cost, values per query."""
    result = command("eval.py", "task=report", f"runs=[{trained[0]}]", f"task.folder={tmp_path}")
    assert result.code == 0, result.err
    metrics = json.loads((trained[0] / "metrics.json").read_text())["sets"]["stdlib_code"]
    for name, key in (("trained", "supervised"), ("untrained", "zero_shot")):
        assert f"{key}_other/qwen-tiny={metrics[name]['nDCG@10']:.4f}" in result.last_line
    assert f"supervised_other/bm25={metrics['bm25']['nDCG@10']:.4f}" in result.last_line
    assert (tmp_path / "figures" / "learning_curves.png").is_file()
    curve = json.loads((trained[0] / "learning_curve.json").read_text())
    assert [step for step, _ in curve["evaluations"]] == [0, 2, 4, 6]
    cost = json.loads((trained[0] / "summary.json").read_text())["cost"]
    assert 0 < cost["training_s"] < 120
    assert cost["num_devices"] == 1
    options = json.loads((trained[0] / "provenance.json").read_text())["options"]
    assert (options["model"], options["data"]) == ("qwen-tiny", "stdlib_code")


def test_tables_and_figures_go_to_wandb_where_they_are_wanted(
    command: Command, study: Path, tmp_path: Path
) -> None:
    result = command(
        "eval.py", "task=report", "task.study=specials", f"task.folder={tmp_path}", "logger=wandb"
    )
    assert result.code == 0, result.err
    (table,) = wandb_files.tables(tmp_path, "report/zero_shot_other")
    assert [row["model"] for row in table] == ["bm25", "qwen-base", "qwen-coder", "qwen-math"]
    assert table[1].keys() == {"model", "alpha nDCG@10", "beta nDCG@10", "mean nDCG@10"}
    logged = {key for row in wandb_files.history(tmp_path) for key in row}
    assert any(key.startswith("report/zero_shot_other/Heat map") for key in logged)
    found = wandb_files.identity(tmp_path)
    assert (found.group, found.name) == ("specials", "Study specials")
    assert found.job_type == "report"


def refused(command: Command, *overrides: str) -> str:
    result = command("eval.py", "task=report", *overrides)
    assert result.code == 2, result.err
    assert "Traceback" not in result.err
    return result.err.split("\nError: ", 1)[1]


def test_numbers_under_two_conventions_are_refused_and_nothing_is_written(
    command: Command, tmp_path: Path
) -> None:
    first, second = job(tmp_path, "one", 0.3), job(tmp_path, "two", 0.4, name="mteb")
    out = tmp_path / "out"
    text = refused(command, f"runs=[{first},{second}]", f"task.folder={out}")
    assert f"alpha: convention name is beir in {first}, but mteb in {second}" in text
    assert not out.exists()


def test_what_would_have_no_effect_is_refused(command: Command, study: Path) -> None:
    text = refused(command, "task.study=specials", "model=qwen-coder")
    assert text.startswith("model has no effect on task=report")
    result = command("eval.py", f"runs=[{study}]", "retriever=bm25")
    assert result.code == 2
    assert "has no effect here. Fix: task=report" in result.err
