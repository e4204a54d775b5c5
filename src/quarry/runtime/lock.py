"""Lock a file between processes; the system releases the lock if its holder dies."""

from __future__ import annotations

import errno
import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""Errors of file systems that do not support locks."""


@contextmanager
def locked(path: Path, *, what: str) -> Iterator[None]:
    """Hold the lock on `path`, a file of its own; wait for another process that holds it.

    If the file system does not support locks (some network ones), one warning says so and the
    block runs without.

    Args:
        what: the work that is locked, for the log: "the embeddings of scifact".
    """
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("Another process works on %s (%s); waiting for it", what, path)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            logger.warning(
                "%s cannot be locked (%s): run only one process at a time on %s, or work is done "
                "twice",
                path,
                error.strerror,
                what,
            )
        yield  # closing the file gives the lock back


@contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock on `path` and yield True; yield False if another process holds it.

    If the file system does not support locks, yield True: nobody can hold one.
    """
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield True
