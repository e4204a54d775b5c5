"""What a sweep says when it ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from quarry.errors import UserError
from quarry.runtime import task_output
from quarry.sweep.end import begun_study, shows_study
from quarry.sweep.record import JobRecord, Status, Study, StudyRecord

RULES = "The configuration cannot work:\n- data.num_workers must be 0 or more"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setattr(task_output, "_lines", ["so that nothing is printed at exit"])
    token = begun_study.set(StudyRecord(tmp_path))
    yield tmp_path
    begun_study.reset(token)


def a_job(name: str, status: Status, error: str | None = None) -> JobRecord:
    return JobRecord(directory=name, overrides=(), status=status, error=error)


def test_a_failure_is_told_with_its_cause_and_once_for_all_jobs_that_failed_alike(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = (
        a_job("seed-1", "failed", RULES),
        a_job("seed-2", "finished"),
        a_job("seed-3", "failed", RULES),
        a_job("seed-4", "interrupted"),
        a_job("seed-5", "failed", "It would not fit.\nWhat would run:\n  another command"),
    )
    StudyRecord(folder).write(Study(name="mine", fixed=(), jobs=jobs))
    with pytest.raises(SystemExit) as caught, shows_study(primary="train"):
        pass
    assert caught.value.code == 1
    error = capsys.readouterr().err
    assert "Error: 4 of 5 jobs did not finish." in error
    assert error.splitlines()[-3:] == [
        "- seed-1, seed-3: The configuration cannot work: - data.num_workers must be 0 or more",
        "- seed-4: interrupted",
        "- seed-5: It would not fit.",
    ]


def test_a_command_for_the_other_entry_point_does_not_begin(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/train.py", "study=prompt"])
    with pytest.raises(UserError, match=r"study=prompt is for eval"), shows_study(primary="train"):
        pytest.fail("it began")
