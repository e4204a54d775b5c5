from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from quarry.errors import UserError
from quarry.runtime.run_directory import RunDirectory
from quarry.study_report.discovery import find_runs
from quarry.sweep.record import JobRecord, Study, StudyRecord

WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from quarry.sweep.record import StudyRecord

record = StudyRecord(Path(sys.argv[1]))
name = sys.argv[2]
for attempt in range(1, 26):
    record.put(replace(record.read().job(name), attempts=attempt, status="running"))
record.put(replace(record.read().job(name), status="finished", objective=float(name)))
"""


def a_study(*names: str) -> Study:
    jobs = tuple(JobRecord(directory=name, overrides=(f"seed={name}",)) for name in names)
    return Study(name="x", fixed=(), jobs=jobs)


@pytest.mark.timeout(120)
def test_no_change_is_lost_where_several_write_at_once(tmp_path: Path) -> None:
    record = StudyRecord(tmp_path)
    names = ["1", "2", "3", "4"]
    record.write(a_study(*names))
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name]) for name in names
    ]
    seen = 0
    while any(writer.poll() is None for writer in writers):
        study = record.read()  # whole at any time
        assert study is not None
        assert len(study.jobs) == 4
        seen += 1
    assert [writer.wait(60) for writer in writers] == [0, 0, 0, 0]
    study = record.read()
    assert study is not None
    assert seen > 0
    assert [(job.status, job.attempts, job.objective) for job in study.jobs] == [
        ("finished", 25, float(name)) for name in names
    ]


def test_what_is_said_to_run_and_does_not_was_interrupted(tmp_path: Path) -> None:
    record = StudyRecord(tmp_path)
    record.write(a_study("1", "2", "3"))
    for name in ("1", "2"):
        record.put(JobRecord(directory=name, overrides=(), status="running", attempts=1))
    with record.held("1"):
        study = record.settle()
    assert study is not None
    assert [job.status for job in study.jobs] == ["running", "interrupted", "queued"]


def test_the_report_knows_what_became_of_a_job(tmp_path: Path) -> None:
    record = StudyRecord(tmp_path)
    record.write(a_study("1", "2"))
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
        RunDirectory(tmp_path / name).resolved_config.write_text("{}")
    RunDirectory(tmp_path / "1").metrics.write_text("{}")
    record.put(JobRecord(directory="1", overrides=(), status="finished"))
    record.put(JobRecord(directory="2", overrides=(), status="failed", error="out of memory"))
    found = find_runs([str(tmp_path)])
    assert found.directories == (tmp_path / "1",)
    assert found.unfinished == {tmp_path / "2": "failed: out of memory"}
    assert found.remarks == ()


def test_a_file_that_is_no_record_is_refused(tmp_path: Path) -> None:
    record = StudyRecord(tmp_path)
    assert record.read() is None
    record.path.write_text(json.dumps({"jobs": [{"directory": "a"}], "name": "x", "fixed": []}))
    with pytest.raises(UserError, match="not the record of a study"):
        record.read()


@pytest.mark.parametrize("directory", ["../../other", "/tmp", "..", ".", "a/../../b"])
def test_a_job_that_is_started_again_lies_in_the_folder_of_its_study(
    tmp_path: Path, directory: str
) -> None:
    """Its folder is removed first."""
    record = StudyRecord(tmp_path)
    with pytest.raises(UserError, match="is not in the folder of the study"):
        record.folder_of(JobRecord(directory=directory, overrides=()))
    inside = JobRecord(directory="jobs/one", overrides=())
    assert record.folder_of(inside) == tmp_path / "jobs" / "one"
