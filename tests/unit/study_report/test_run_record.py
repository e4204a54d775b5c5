"""A run directory is read as it was written, and one that was changed is noticed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.study_runs import a_set, write_run_directory
from quarry.errors import UserError
from quarry.study_report.run_record import read_record
from quarry.study_report.settings import relevant
from quarry.types import Report

REPORTS = [Report(retriever="dense", results=(a_set("alpha", [0.5, 0.25]),), failures={"b": "x"})]


def test_everything_that_a_report_needs_is_there(tmp_path: Path) -> None:
    directory = write_run_directory(
        tmp_path / "run",
        REPORTS,
        is_training=True,
        curve=[(0, 0.1), (10, 0.2)],
        training_s=1800,
        settings={"benchmark.sets": ["alpha"]},
    )
    record = read_record(directory)
    assert record.options["model.pooling"] == "last_token"
    assert record.is_training
    assert (record.setting("seed"), record.setting("model.path")) == ("42", None)
    assert record.measures == ["nDCG@10", "MRR@10"]
    assert record.benchmark_sets == ["alpha"]
    (report,) = record.reports
    assert report.results[0].per_query == {"nDCG@10": {"q0": 0.5, "q1": 0.25}}
    assert report.failures == {"b": "x"}
    assert record.cost is not None
    assert record.cost.training_device_hours == 4.0  # half an hour on eight
    assert record.curve is not None
    assert record.curve.evaluations == ((0, 0.1), (10, 0.2))


def test_a_run_of_an_earlier_version_has_the_settings_of_today(tmp_path: Path) -> None:
    old = {
        "data.num_queries_per_update": 128, "loss.num_contrast_queries": 32,
        "model.linear": "plain", "model.is_normalized": True, "model.has_trusted_code": False,
    }  # fmt: skip
    new = {
        "data.global_batch_size": 128, "loss.contrastive_batch_size": 32,
        "model.linear_precision": None, "model.normalize": True, "model.trust_remote_code": False,
    }  # fmt: skip
    before, now = (
        relevant(read_record(directory).settings, "supervised")
        for directory in (
            write_run_directory(tmp_path / "old", REPORTS, is_training=True, settings=old),
            write_run_directory(tmp_path / "new", REPORTS, is_training=True, settings=new),
        )
    )
    assert before == now
    assert now["model.linear_precision"] == "null"


def test_values_that_were_changed_since_are_noticed(tmp_path: Path) -> None:
    directory = write_run_directory(tmp_path / "run", REPORTS)
    (file,) = (directory / "per_query").iterdir()
    file.write_text(file.read_text().replace("0.25", "0.75"))
    with pytest.raises(
        UserError, match=r"the mean of nDCG@10 is 0\.625000, and metrics\.json says"
    ):
        read_record(directory)


def test_values_that_are_gone_leave_the_mean(tmp_path: Path) -> None:
    directory = write_run_directory(tmp_path / "run", REPORTS)
    (file,) = (directory / "per_query").iterdir()
    file.unlink()
    (result,) = read_record(directory).reports[0].results
    assert result.metrics == {"nDCG@10": 0.375}
    assert result.per_query == {}


@pytest.mark.parametrize("name", ["learning_curve.json", "summary.json", "provenance.json"])
def test_a_file_that_is_something_else_is_named(tmp_path: Path, name: str) -> None:
    directory = write_run_directory(tmp_path / "run", REPORTS)
    (directory / name).write_text(json.dumps([1]))
    with pytest.raises(UserError, match="is not what a run writes"):
        read_record(directory)
