"""A lock is held by one, waited for by others, and free again however its holder ends."""

from __future__ import annotations

import errno
import fcntl
import logging
import threading
from pathlib import Path

import pytest

from quarry.runtime import lock as lock_module
from quarry.runtime.lock import locked


def test_the_second_waits_says_so_and_gets_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    order: list[str] = []
    is_waiting = threading.Event()

    def second() -> None:
        with locked(tmp_path / "lock", what="the corpus"):
            order.append("second")

    class Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            is_waiting.set()

    watch = Watch()
    logging.getLogger(lock_module.__name__).addHandler(watch)
    thread = threading.Thread(target=second)
    try:
        with caplog.at_level(logging.INFO), locked(tmp_path / "lock", what="the corpus"):
            thread.start()
            assert is_waiting.wait(10)
            order.append("first")
        thread.join(10)
    finally:
        logging.getLogger(lock_module.__name__).removeHandler(watch)
    assert order == ["first", "second"]
    (message,) = [record.getMessage() for record in caplog.records]
    assert message == (f"Another process works on the corpus ({tmp_path / 'lock'}); waiting for it")


def test_an_error_gives_it_back(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), locked(tmp_path / "lock", what="it"):
        raise RuntimeError
    with (tmp_path / "lock").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(other, fcntl.LOCK_UN)
        with locked(tmp_path / "lock", what="it"), pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def refusing(number: int) -> object:
    def flock(*_: object) -> None:
        raise OSError(number, "refused")

    return flock


def test_a_file_system_without_locks_is_used_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lock_module.fcntl, "flock", refusing(errno.ENOLCK))
    with locked(tmp_path / "lock", what="the corpus"):
        pass
    assert "run only one process at a time on the corpus" in caplog.text


def test_any_other_refusal_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module.fcntl, "flock", refusing(errno.EIO))
    with pytest.raises(OSError, match="refused"), locked(tmp_path / "lock", what="it"):
        pass
