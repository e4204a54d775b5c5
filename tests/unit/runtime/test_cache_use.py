"""What a process uses is held, and marked as used."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from quarry.runtime import cache_use
from quarry.runtime.cache_use import CacheUse, keep_used, unused


@pytest.fixture(params=["file", "folder"])
def entry(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "entry"
    if request.param == "file":
        path.touch()
    else:
        path.mkdir()
    os.utime(path, (1, 1))
    return path


def is_unused(path: Path) -> bool:
    with unused(path) as reason:
        return reason is None


def test_an_entry_is_held_as_long_as_its_user_lives(entry: Path) -> None:
    assert is_unused(entry)
    one, two = CacheUse(entry), CacheUse(entry)
    assert not is_unused(entry)
    del one
    assert not is_unused(entry)
    del two
    assert is_unused(entry)


def test_the_last_use_is_marked(entry: Path) -> None:
    CacheUse(entry)
    assert entry.stat().st_mtime > 1


def test_nobody_begins_to_hold_an_entry_while_it_is_removed(entry: Path) -> None:
    with unused(entry) as reason:
        assert reason is None
        late = CacheUse(entry)  # does not wait
        assert late is not None
    assert is_unused(entry)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (BlockingIOError(errno.EAGAIN, "busy"), "in use"),
        (OSError(errno.ENOLCK, "No locks available"), "no lock: No locks available"),
    ],
)
def test_the_reason_is_said(
    entry: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, said: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(cache_use.fcntl, "flock", fail)
    with unused(entry) as reason:
        assert reason == said
    with unused(entry.with_name("nothing")) as reason:
        assert reason == "No such file or directory"


def test_what_is_not_there_is_not_held_and_not_unused(tmp_path: Path) -> None:
    CacheUse(tmp_path / "nothing")
    assert not is_unused(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_an_entry_is_held_again_once_it_is_there_again(
    entry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_use, "_kept", {})
    gone = entry.rename(entry.with_name("gone"))
    keep_used(entry)  # not there
    gone.rename(entry)
    keep_used(entry)
    assert not is_unused(entry)
    entry.rename(gone)
    entry.mkdir()  # another one
    assert is_unused(entry)
    keep_used(entry)
    assert not is_unused(entry)


def test_an_entry_is_kept_until_the_process_ends(
    entry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_use, "_kept", {})
    keep_used(entry)
    keep_used(entry)
    assert len(cache_use._kept) == 1
    assert not is_unused(entry)
    code = (
        "import sys, pathlib; from quarry.runtime.cache_use import unused\n"
        "with unused(pathlib.Path(sys.argv[1])) as reason: sys.exit(int(reason != 'in use'))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(entry)], check=False).returncode == 0
