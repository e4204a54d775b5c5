"""Which directories are reported: named, matched, jobs of a study; and what is told of the rest."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from helpers.study_runs import a_set, write_run_directory
from quarry.errors import MissingPathError, UserError
from quarry.runtime.run_directory import RunDirectory
from quarry.study_report.discovery import find_runs, newest_study
from quarry.types import Report

DENSE = [Report(retriever="dense", results=(a_set("alpha", [0.5, 0.25]),))]


def test_a_folder_stands_for_the_runs_below_it_and_a_pattern_for_what_matches(
    tmp_path: Path,
) -> None:
    first = write_run_directory(tmp_path / "a" / "first", DENSE)
    second = write_run_directory(tmp_path / "a" / "sweep" / "0", DENSE)
    other = write_run_directory(tmp_path / "b", DENSE)
    assert find_runs([str(tmp_path / "a")]).directories == (first, second)
    assert find_runs([str(tmp_path / "a")]).study == tmp_path / "a"
    assert find_runs([str(first)]).study is None
    assert find_runs([str(tmp_path / "*" / "f*"), str(other)]).directories == (first, other)
    # each once, however often it is named
    named = find_runs([str(tmp_path), str(first), str(tmp_path / "a" / "*")])
    assert named.directories == (first, second, other)


def test_a_run_without_metrics_is_told_and_not_left_out_in_silence(tmp_path: Path) -> None:
    finished = write_run_directory(tmp_path / "finished", DENSE)
    stopped = write_run_directory(tmp_path / "stopped", [])
    found = find_runs([str(tmp_path)])
    assert found.directories == (finished,)
    assert list(found.unfinished) == [stopped]
    assert "no metrics.json" in found.unfinished[stopped]
    (stopped / "summary.json").touch()
    assert find_runs([str(tmp_path)]).unfinished == {
        stopped: "nothing was evaluated (benchmark=none)"
    }


def test_a_study_says_why_a_job_has_nothing(tmp_path: Path) -> None:
    finished = write_run_directory(tmp_path / "jobs" / "one", DENSE)
    killed = write_run_directory(tmp_path / "jobs" / "two", [])
    partly = write_run_directory(tmp_path / "jobs" / "four", DENSE)
    jobs = [
        {"directory": "jobs/one", "overrides": [], "status": "finished", "error": None},
        {"directory": str(killed), "overrides": [], "status": "killed", "error": "signal 9"},
        {"directory": "jobs/three", "overrides": [], "status": "failed", "error": "no such model"},
        {"directory": "jobs/four", "overrides": [], "status": "failed", "error": "a set failed"},
    ]
    (tmp_path / "study.json").write_text(json.dumps({"name": "s", "fixed": [], "jobs": jobs}))
    found = find_runs([str(tmp_path)])
    assert found.directories == (partly, finished)
    assert found.unfinished == {killed: "killed: signal 9"}
    assert found.remarks == ("three: failed: no such model", "four: failed: a set failed")


def test_nothing_to_report_is_an_error_that_says_where_it_looked(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingPathError, match="is no run directory, and there is none below it"):
        find_runs([str(tmp_path / "empty")])
    with pytest.raises(MissingPathError, match=r"runs: .*/nowhere is no folder"):
        find_runs([str(tmp_path / "nowhere")])
    with pytest.raises(MissingPathError, match=r"runs: no folder matches .*/x\*"):
        find_runs([str(tmp_path / "x*")])
    stopped = write_run_directory(tmp_path / "stopped", [])
    with pytest.raises(MissingPathError, match="None of the run directories has results") as info:
        find_runs([str(stopped)])
    assert str(stopped) in str(info.value)


def test_a_study_file_that_is_none_is_refused(tmp_path: Path) -> None:
    write_run_directory(tmp_path / "one", DENSE)
    (tmp_path / "study.json").write_text('{"jobs": [{"status": "finished"}]}')
    with pytest.raises(UserError, match=r"study\.json: not the record of a study"):
        find_runs([str(tmp_path)])


def test_a_pattern_passes_over_the_folder_of_a_report(tmp_path: Path) -> None:
    run = write_run_directory(tmp_path / "run", DENSE)
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.json").write_text("{}")
    assert find_runs([str(tmp_path / "*")]).directories == (run,)


def test_the_newest_study_is_the_one_that_changed_last(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match="has no study yet"):
        newest_study(tmp_path / "study")
    for number, name in enumerate(("older", "newer", "oldest")):
        run = write_run_directory(tmp_path / "study" / name / "job", DENSE)
        time = 1000 + (number - 1) ** 2 * -100 + (number == 2) * -50
        os.utime(run / "config_resolved.yaml", (time, time))
    (tmp_path / "study" / "empty").mkdir()
    assert newest_study(tmp_path / "study").name == "newer"


def test_dry_runs_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("real", "debug_fast"):
        run = RunDirectory(tmp_path / name)
        run.path.mkdir()
        run.resolved_config.write_text("{}")
        run.metrics.write_text("{}")
    provenance = RunDirectory(tmp_path / "debug_fast").provenance
    provenance.write_text('{"dry_run": "debug=fast"}')
    with caplog.at_level("INFO"):
        assert find_runs([str(tmp_path / "*")]).directories == (tmp_path / "real",)
    assert "1 dry runs" in caplog.text
    with pytest.raises(MissingPathError, match="all 1 run directories are dry runs"):
        find_runs([str(tmp_path / "debug_fast")])
