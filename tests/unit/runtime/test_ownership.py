"""One process owns a run directory: others are refused, with its name. The dead own nothing."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import multiprocessing
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import pytest

from quarry.errors import UserError
from quarry.runtime import ownership
from quarry.runtime.files import open_own
from quarry.runtime.ownership import Holder, begun_run, holder, owned
from quarry.runtime.run_directory import RunDirectory

FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "ENDS_S", 0.2)


def hold(folder: Path, connection: Connection) -> None:
    """Owns a directory until its input ends; what it answers is "owned" or the refusal."""
    try:
        with owned(folder):
            connection.send("owned")
            connection.recv()
    except UserError as error:
        connection.send(str(error))


@contextmanager
def other_process(folder: Path) -> Iterator[tuple[int, Connection, str]]:
    own, theirs = FORK.Pipe()
    process = FORK.Process(target=hold, args=(folder, theirs), daemon=True)
    process.start()
    try:
        assert process.pid is not None
        yield process.pid, own, own.recv()
    finally:
        process.kill()
        process.join()


def test_a_second_process_is_refused_by_the_name_of_the_owner(tmp_path: Path) -> None:
    with other_process(tmp_path) as (pid, _, answer):
        assert answer == "owned"
        with pytest.raises(UserError) as caught, owned(tmp_path):
            pytest.fail("two owners")
    message = str(caught.value)
    assert f"process {pid} on host {socket.gethostname()}, since 20" in message
    assert str(tmp_path) in message
    assert "rm " not in message  # it is of this host, and alive


def test_the_other_is_refused_by_us(tmp_path: Path) -> None:
    with owned(tmp_path), other_process(tmp_path) as (_, _, answer):
        assert f"process {os.getpid()} on host" in answer


def test_released_directories_are_free_and_leave_an_empty_lock_file(tmp_path: Path) -> None:
    with owned(tmp_path):
        (tmp_path / "config.yaml").touch()
        found = holder(RunDirectory(tmp_path))
        assert found is not None
        assert found.pid == os.getpid()
    assert (tmp_path / ".lock").read_bytes() == b""
    with other_process(tmp_path) as (_, _, answer):
        assert answer == "owned"


def test_a_directory_of_a_killed_process_is_taken_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it may take a while to end."""
    monkeypatch.setattr(ownership, "ENDS_S", 60)
    (tmp_path / "run.log").touch()
    with other_process(tmp_path) as (pid, _, _):
        os.kill(pid, signal.SIGKILL)
        with caplog.at_level(logging.INFO), owned(tmp_path):
            found = holder(RunDirectory(tmp_path))
    assert found is not None
    assert found.pid == os.getpid()
    assert f"taken over from process {pid} on host" in caplog.text


def test_functions_of_one_process_may_own_it_together(tmp_path: Path) -> None:
    with owned(tmp_path):
        with owned(tmp_path / "." / "x" / ".."):
            pass
        with other_process(tmp_path) as (_, _, answer):
            assert f"process {os.getpid()}" in answer  # the inner block has released nothing


def test_what_was_never_written_to_leaves_nothing(tmp_path: Path) -> None:
    with owned(tmp_path / "new"):
        pass
    assert list((tmp_path / "new").iterdir()) == []


def written(folder: Path, **more: Any) -> Holder:
    """A lock file as another process would have left it."""
    own = psutil.Process()
    given = {"host": socket.gethostname(), "pid": own.pid, "started": own.create_time()} | more
    other = Holder(since="2026-11-30T10:00:00+00:00", **given)
    (folder / ".lock").write_text(json.dumps(vars(other)))
    return other


def no_locks(file: Any, operation: int) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


DEAD = 2**22 + 7  # above the largest pid that Linux gives


@pytest.mark.parametrize(
    ("more", "is_refused"),
    [
        ({}, True),
        ({"started": 1.0}, False),  # another process has got its pid
        ({"pid": DEAD}, False),
        ({"host": "elsewhere", "pid": DEAD}, True),  # cannot be looked for
    ],
)
def test_without_locks_the_name_in_the_file_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], is_refused: bool
) -> None:
    other = written(tmp_path, **more)
    monkeypatch.setattr(fcntl, "flock", no_locks)
    if not is_refused:
        with owned(tmp_path):
            assert holder(RunDirectory(tmp_path)) != other
        return
    with pytest.raises(UserError) as caught, owned(tmp_path):
        pytest.fail("two owners")
    assert str(other) in str(caught.value)
    assert (f"rm {tmp_path}/.lock" in str(caught.value)) == (other.host == "elsewhere")
    assert holder(RunDirectory(tmp_path)) == other


def test_a_free_lock_that_another_host_left_is_taken_over_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = written(tmp_path, host="elsewhere")
    with owned(tmp_path):
        found = holder(RunDirectory(tmp_path))
    assert found is not None
    assert found.host == socket.gethostname()
    (record,) = (each for each in caplog.records if each.levelno == logging.WARNING)
    assert str(other) in record.getMessage()


def test_a_directory_of_before_is_taken_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "config.yaml").touch()
    for _ in range(2):
        with owned(tmp_path):
            pass
    warnings = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "of an earlier version" in warnings[0].getMessage()


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"host": "HOST", "pid": "x", "since": "now", "started": 1.0}']
)
def test_a_damaged_lock_file_is_nobodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setattr(fcntl, "flock", no_locks)  # so that the name decides
    (tmp_path / ".lock").write_text(content.replace("HOST", socket.gethostname()))
    with owned(tmp_path):
        assert holder(RunDirectory(tmp_path)) is not None


def test_a_directory_that_cannot_be_written_to_is_not_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", read_only)
        with owned(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_begun_by_one_process(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with begun_run(run_dir) as run:
        run.config.write_text("seed: 1\n")
        run.resolved_config.write_text("seed: 1\n")
        assert run.path == run_dir
    with (
        other_process(run_dir) as (pid, _, _),
        pytest.raises(UserError, match=f"process {pid}"),
        begun_run(run_dir),
    ):
        pytest.fail("two owners")
    with pytest.raises(UserError, match="holds a run already"), begun_run(run_dir):
        pytest.fail("two runs")


def test_a_directory_that_vanishes_hides_no_error(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(KeyError, match="the real one"), owned(run):  # noqa: PT012
        shutil.rmtree(run)
        raise KeyError("the real one")


def test_a_directory_that_its_owner_removes_meanwhile_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `removed_if_empty` does after a start that failed."""
    removals = [tmp_path / "run"]

    def late(path: Path, mode: str) -> Any:
        if removals:
            removals.pop().rmdir()
        return open_own(path, mode)

    monkeypatch.setattr(ownership, "open_own", late)
    with owned(tmp_path / "run"):
        assert holder(RunDirectory(tmp_path / "run")) is not None
