"""Mark entries of the cache as used, and hold them so that nobody removes them meanwhile."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

IN_USE = "in use"

_kept: dict[Path, CacheUse] = {}
"""What this process uses until it ends."""


class CacheUse:
    """Shared lock on a file or folder of the cache, for as long as this object lives.

    It needs no permission to write. The time of the entry's last use is set where that is allowed.
    Without support for locks, or without the entry, nothing is held.
    """

    def __init__(self, path: Path) -> None:
        self._file: int | None = None
        self._is_locked = False
        self._path = path
        with contextlib.suppress(OSError):
            self._file = os.open(path, os.O_RDONLY)
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            self._is_locked = True
            os.utime(path)

    @property
    def is_held(self) -> bool:
        """Whether the entry that is there now is locked, not one that was removed since."""
        if self._file is None or not self._is_locked:
            return False
        try:
            return os.path.samestat(os.fstat(self._file), self._path.stat())
        except OSError:
            return False

    def __del__(self) -> None:
        if self._file is not None:
            os.close(self._file)


def keep_used(path: Path) -> None:
    """Hold an entry until this process ends, if it is there; do so before looking into it."""
    if path not in _kept or not _kept[path].is_held:
        _kept[path] = CacheUse(path)


@contextlib.contextmanager
def unused(path: Path) -> Iterator[str | None]:
    """Yield None if no process uses an entry, and let none begin to inside the block.

    Else yield why it cannot be held alone: `IN_USE`, or the system's words (no permission, or no
    locks, as on some network file systems).
    """
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError as error:
        yield str(error.strerror)
        return
    try:
        reason = None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            reason = IN_USE
        except OSError as error:
            reason = f"no lock: {error.strerror}"
        yield reason
    finally:
        os.close(file)
