"""A run directory of somebody else has links where a run has files: nothing outside is written."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from quarry.errors import UserError
from quarry.runtime.logging import logs_to
from quarry.runtime.ownership import owned
from quarry.training.checkpoint_files import CheckpointFiles

Writer = Callable[[Path], AbstractContextManager[None]]


def owner(path: Path) -> AbstractContextManager[None]:
    return owned(path.parent)


WRITERS = [(".lock", owner), ("run.log", logs_to)]


@pytest.mark.parametrize(("name", "writes"), WRITERS)
def test_a_link_in_a_run_directory_is_not_written_through(
    tmp_path: Path, name: str, writes: Writer
) -> None:
    victim, run = tmp_path / "bashrc", tmp_path / "run"
    victim.write_text("mine")
    run.mkdir()
    (run / name).symlink_to(victim)
    with pytest.raises(UserError, match=f"{run / name}: is a link to {victim}"), writes(run / name):
        logging.getLogger().error("written")
    assert victim.read_text() == "mine"


@pytest.mark.parametrize(("name", "writes"), WRITERS)
def test_a_link_to_nothing_makes_no_file(tmp_path: Path, name: str, writes: Writer) -> None:
    victim, run = tmp_path / "new", tmp_path / "run"
    run.mkdir()
    (run / name).symlink_to(victim)
    with pytest.raises(UserError, match="is a link"), writes(run / name):
        pass
    assert not victim.exists()


@pytest.mark.parametrize(("name", "writes"), WRITERS)
def test_a_pipe_is_refused_and_waited_for_by_nobody(
    tmp_path: Path, name: str, writes: Writer
) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match="is no regular file"), writes(tmp_path / name):
        pass


def confirmed(files: CheckpointFiles) -> None:
    files.last.unlink()
    files.last.touch()
    files.confirm()


def fallen_back(files: CheckpointFiles) -> None:
    files.previous.with_name("last.ckpt.step-1").mkdir()
    files.previous.unlink()
    files.previous.symlink_to("last.ckpt.step-1")
    files.fall_back()


def replaced(files: CheckpointFiles) -> None:
    new = files.last.with_name(".step-2.tmp")
    new.mkdir()
    files.put(new, is_good=True)


@pytest.mark.parametrize("act", [confirmed, fallen_back, replaced])
@pytest.mark.parametrize("where", ["thesis", "run/thesis", "other/last.ckpt.step-1"])
def test_a_checkpoint_that_links_to_a_folder_of_the_user_removes_the_link_alone(
    tmp_path: Path, act: Callable[[CheckpointFiles], None], where: str
) -> None:
    victim, files = tmp_path / where, CheckpointFiles(tmp_path / "run" / "last.ckpt")
    for folder in (victim, files.last.parent):
        folder.mkdir(parents=True, exist_ok=True)
    (victim / "chapter").write_text("mine")
    for link in (files.last, files.previous):
        link.symlink_to(victim)
    act(files)
    assert (victim / "chapter").read_text() == "mine"
    assert not files.previous.is_symlink()
