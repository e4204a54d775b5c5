from __future__ import annotations

from pathlib import Path

import pytest

from quarry.errors import Interrupted
from quarry.runtime.failed_start import removes_failed_start
from quarry.runtime.run_directory import RunDirectory


def start(run: RunDirectory, error: BaseException, *, begun: bool = False) -> None:
    with removes_failed_start(run) as begins:
        write_start(run)
        (run.path / "later.txt").write_text("mine, too", encoding="utf-8")
        if begun:
            begins()
        raise error


def write_start(run: RunDirectory) -> None:
    for path in (run.config, run.resolved_config, run.provenance, run.log):
        path.write_text("x", encoding="utf-8")
    (run.path / "wandb" / "offline-run").mkdir(parents=True)


@pytest.mark.parametrize("error", [ValueError(), Interrupted("stop"), KeyboardInterrupt()])
def test_a_start_that_fails_takes_its_own_files_along(tmp_path: Path, error: BaseException) -> None:
    run = RunDirectory.create(tmp_path / "run")
    for name in ("notes.txt", "run.log"):
        (run.path / name).write_text("mine", encoding="utf-8")
    with pytest.raises(type(error)):
        start(run, error)
    assert {path.name for path in run.path.iterdir()} == {"notes.txt", "run.log", "later.txt"}
    assert RunDirectory.create(run.path) == run  # the mended command can start


def test_what_has_begun_stays(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    with pytest.raises(ValueError, match="later"):
        start(run, ValueError("later"), begun=True)
    assert run.config.exists()


def test_what_ends_well_stays(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    with removes_failed_start(run):
        write_start(run)
    assert run.config.exists()
