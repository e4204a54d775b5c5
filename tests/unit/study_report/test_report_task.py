"""The report task: which runs it takes, where it writes, and which mistakes it tells."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate

from helpers.commands import ROOT
from helpers.study_runs import BM25_SETTINGS, a_set, write_run_directory
from quarry.config.schema import register_schemas
from quarry.errors import UserError
from quarry.types import Report


@pytest.fixture(scope="module", autouse=True)
def _conf() -> Iterator[None]:
    register_schemas()
    with initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):
        yield


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    """A study of one job."""
    results = (a_set("alpha", [0.5, 0.25]),)
    write_run_directory(
        tmp_path / "study" / "one" / "job", [Report(retriever="dense", results=results)]
    )
    return tmp_path


def report(runs_dir: Path, *overrides: str) -> dict[str, float]:
    overrides = ("task=report", "paths.run_dir=.", f"paths.runs_dir={runs_dir}", *overrides)
    config = compose(config_name="eval", overrides=list(overrides))
    found: dict[str, float] = instantiate(config.task)(config)
    return found


def test_the_result_is_the_average_of_each_row(runs_dir: Path) -> None:
    assert report(runs_dir) == {"report/zero_shot_other/qwen-base": 0.375}
    assert (runs_dir / "study" / "one" / "report" / "report.md").is_file()


def test_runs_of_no_folder_have_a_report_of_their_own(runs_dir: Path) -> None:
    job = runs_dir / "study" / "one" / "job"
    report(runs_dir, f"runs=[{job}]")
    (page,) = (runs_dir / "report").glob("*/report.md")
    assert page.read_text().startswith("# 1 runs\n")


def test_a_report_goes_into_the_directory_that_the_command_names(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = runs_dir / "named"
    monkeypatch.setattr("quarry.study_report.report_task.named_run_directory", lambda config: named)
    report(runs_dir)
    assert (named / "report.md").is_file()
    assert not (runs_dir / "study" / "one" / "report").exists()
    report(runs_dir, f"task.folder={runs_dir / 'mine'}")
    assert (runs_dir / "mine" / "report.md").is_file()


def test_tags_of_the_runs_are_in_the_report(tmp_path: Path) -> None:
    results = (a_set("alpha", [0.5, 0.25]),)
    run = write_run_directory(
        tmp_path / "one",
        [Report(retriever="dense", results=results)],
        settings={"tags": ["a", "b"]},
    )
    report(tmp_path, f"runs=[{run}]", f"task.folder={tmp_path / 'out'}")
    assert "(tags a, b)" in (tmp_path / "out" / "report.md").read_text()


def test_a_logger_that_cannot_start_is_refused_before_anything_is_written(runs_dir: Path) -> None:
    with pytest.raises(UserError, match=r"logger\.x=5 names no class"):
        report(runs_dir, "+logger.x=5")
    assert not (runs_dir / "study" / "one" / "report").exists()


def test_a_retriever_without_a_model_is_a_baseline(runs_dir: Path) -> None:
    job = write_run_directory(
        runs_dir / "bm25",
        [Report(retriever="bm25", results=(a_set("alpha", [1.0, 0.5]),))],
        settings={"retriever": BM25_SETTINGS},
    )
    study = runs_dir / "study" / "one"
    found = report(runs_dir, f"runs=[{job},{study}]", f"task.folder={runs_dir / 'out'}")
    assert found["report/zero_shot_other/bm25"] == 0.75


def test_what_is_left_out_by_name_is_no_row(runs_dir: Path) -> None:
    reports = [
        Report(retriever=name, results=(a_set("alpha", [0.5]),))
        for name in ("bm25", "untrained", "trained", "hybrid")
    ]
    run = write_run_directory(runs_dir / "trained", reports, is_training=True)
    folder = f"task.folder={runs_dir / 'out'}"
    assert "report/supervised_other/qwen-base (hybrid)" not in report(
        runs_dir, f"runs=[{run}]", folder
    )
    found = report(runs_dir, f"runs=[{run}]", folder, "task.leaves_out=[untrained,bm25]")
    assert list(found) == [
        "report/supervised_other/qwen-base",
        "report/supervised_other/qwen-base (hybrid)",
    ]


def test_a_run_that_cannot_be_read_is_told_and_the_others_are_reported(runs_dir: Path) -> None:
    broken = write_run_directory(
        runs_dir / "study" / "one" / "broken",
        [Report(retriever="dense", results=(a_set("alpha", [0.5, 0.25]),))],
        model="broken",
    )
    (file,) = (broken / "per_query").iterdir()
    file.write_text(json.dumps({"query_id": "q0", "nDCG@10": 1.0}) + "\n")
    assert list(report(runs_dir)) == ["report/zero_shot_other/qwen-base"]
    page = (runs_dir / "study" / "one" / "report" / "report.md").read_text()
    assert f"{broken} is left out: " in page.replace("\\", "")
    with pytest.raises(UserError, match="No run directory can be reported"):
        report(runs_dir, f"runs=[{broken}]")


def test_a_training_that_was_stopped_is_a_row_without_values(runs_dir: Path) -> None:
    """What is measured before it is written at once, so it has a metrics.json."""
    both = [
        Report(retriever=name, results=(a_set("alpha", [0.5, 0.25]),))
        for name in ("untrained", "trained")
    ]
    study = runs_dir / "study" / "one"
    write_run_directory(study / "whole", both, model="qwen-coder", is_training=True)
    write_run_directory(study / "stopped", both[:1], model="qwen-math", is_training=True)
    found = report(runs_dir)
    assert "report/zero_shot_other/qwen-math" in found
    assert "report/supervised_other/qwen-math" not in found
    page = (study / "report" / "report.md").read_text()
    assert "Supervised, other sets: qwen-math, alpha: training was stopped, or is" in page


def test_a_run_without_results_is_told_also_where_no_row_lacks_them(runs_dir: Path) -> None:
    """Another directory has the results of the first; a table for the second there is not."""
    study = runs_dir / "study" / "one"
    write_run_directory(study / "again", [])
    write_run_directory(study / "coir", [], settings={"benchmark.sets": ["apps"]})
    write_run_directory(study / "other", [], model="qwen-coder")  # a row, and its cell is missing
    assert list(report(runs_dir)) == ["report/zero_shot_other/qwen-base"]
    page = (study / "report" / "report.md").read_text().replace("\\", "")
    missing = page.partition("## Missing")[2].partition("##")[0]
    assert f"- {study / 'again'}: no metrics.json" in missing
    assert f"- {study / 'coir'}: no metrics.json" in missing
    assert missing.count("no metrics.json") == 3
    assert str(study / "other") not in missing


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["task.study=nope"], "task.study=nope: there is no .*one"),
        (["runs=[nowhere]"], "runs: nowhere is no folder"),
        (["runs=[nowhere]", "task.study=one"], "task.study=one has no effect beside runs"),
        (["task.base=mine"], "task.base=mine: no table has"),
        (["task.alpha=2"], "task.alpha=2"),
        (["task.num_permutations=0"], "task.num_permutations=0"),
        (["task.measures=[ndcg@10]"], "there is no such measure"),
        (["task.published=[x]"], "task.published: there is no x"),
        (["task.measures=[MAP]"], "There is nothing to show"),
        (["task.sets=[beta]"], "task.sets: no run has measured beta .*alpha"),
        (["task.labels={mine:yours}"], "task.labels: there is no row 'mine'"),
    ],
)
def test_mistakes_are_told_and_nothing_is_written(
    runs_dir: Path, overrides: list[str], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        report(runs_dir, *overrides)
    assert not (runs_dir / "study" / "one" / "report").exists()


def test_without_a_study_there_is_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There are no runs to report"):
        report(tmp_path)


def test_a_job_of_a_sweep_reports_into_its_own_folder(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hydra = SimpleNamespace(runtime=SimpleNamespace(output_dir=str(runs_dir / "job")))
    monkeypatch.setattr(HydraConfig, "get", lambda: hydra)
    report(runs_dir, "study.job=task.base-x")
    assert (runs_dir / "job" / "report" / "report.md").is_file()
    assert not (runs_dir / "study" / "one" / "report").exists()
