"""Let one process at a time work in a run directory, and name it to others that want to."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from io import BufferedRandom
from pathlib import Path
from typing import Any

import psutil

from quarry.errors import UserError
from quarry.runtime.files import open_own
from quarry.runtime.leftovers import remove_leftovers
from quarry.runtime.lock import NO_LOCKS
from quarry.runtime.run_directory import RunDirectory

logger = logging.getLogger(__name__)

ENDS_S = 2.0
"""How long a process that was just killed gets to end: giving back much memory takes a while."""

CHILDREN_END_S = 15.0
"""How long the children of a killed process, which hold its lock, get to end."""

CLOCK_S = 60.0
"""How far the start of a process may seem to move when the clock is set."""

_owned: set[Path] = set()
"""The directories that this process owns: its functions call each other."""

os.register_at_fork(after_in_child=_owned.clear)


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A process that owns a run directory.

    Attributes:
        host, pid: where and what it is.
        since: when it took the directory, UTC.
        started: when it was started, seconds since 1970; another one may get its pid later.
    """

    host: str
    pid: int
    since: str
    started: float

    def __str__(self) -> str:
        return f"process {self.pid} on host {self.host}, since {self.since}"

    @property
    def is_here(self) -> bool:
        return self.host == socket.gethostname()

    @property
    def is_alive(self) -> bool:
        """Whether it runs on this host; of another host's process, nothing is known."""
        try:
            process = psutil.Process(self.pid)
            is_it = abs(process.create_time() - self.started) < CLOCK_S
            return bool(is_it and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.AccessDenied:
            return True
        except psutil.NoSuchProcess:
            return False


@contextmanager
def begun_run(path: str | Path, *, resume_command: str | None = None) -> Iterator[RunDirectory]:
    """Own a directory for a new run, and yield it.

    Args:
        resume_command: see `RunDirectory.create`.

    Raises:
        UserError: another process owns it, or it has another run.
    """
    with owned(Path(path), is_new=True):
        yield RunDirectory.create(path, resume_command=resume_command)


@contextmanager
def owned(folder: Path, *, is_new: bool = False) -> Iterator[None]:
    """Own a run directory until the block ends; remove what a killed process has left there.

    The owner holds a lock of the file system on a file in the directory. The system releases it
    if the process dies, and the next process takes the directory over. NFS passes such locks to
    its server, so they count on all hosts. A network file system may keep them on each host
    (`nolock`, `local_lock`): the name of the other host in the file is then all there is, and a
    warning says it. Where locks are not supported at all, the name decides: a process of this host
    is looked for, and one of another host is believed to run.

    Of several ranks, rank 0 alone calls this.

    Args:
        folder: created if missing. If it cannot be written to, nothing is locked.
        is_new: it is to become a run directory, so that what it holds is not Quarry's.

    Raises:
        UserError: another process owns it.
    """
    folder = folder.expanduser().resolve()
    if folder in _owned:
        yield
        return
    run = RunDirectory(folder)
    is_of_before = run.config.exists() and not run.lock.exists()
    try:
        file = _opened(run)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EROFS, errno.EPERM) or not folder.exists():
            raise
        yield
        return
    with file:
        _take(file, run)
        if is_of_before:
            logger.warning(
                "%s is of an earlier version, whose processes do not lock their run directory: one "
                "that still works there is not noticed", folder,
            )  # fmt: skip
        _owned.add(folder)
        try:
            if not is_new and run.config.exists():
                remove_leftovers(folder)
            yield
        finally:
            _owned.discard(folder)
            file.truncate(0)
            with contextlib.suppress(OSError):  # the directory may be gone
                if [each.name for each in folder.iterdir()] == [run.lock.name]:
                    run.lock.unlink()  # nothing was written
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)  # closing would not, where a child has the file


def holder(run: RunDirectory) -> Holder | None:
    """Return the process that the lock file names, which may be dead; None: there is none."""
    try:
        content = run.lock.read_text(encoding="utf-8")
        return _holder(json.loads(content)) if content.strip() else None
    except FileNotFoundError:
        return None
    except (TypeError, ValueError):
        logger.warning("%s is damaged, and is written anew", run.lock)
        return None


def _holder(content: Any) -> Holder:
    other = Holder(**content)
    if type(other.pid) is not int or other.pid < 1 or type(other.started) not in (int, float):
        raise ValueError("no process")
    return other


def _opened(run: RunDirectory) -> BufferedRandom:
    """Open the lock file, and lock it where the file system has locks."""
    begin = time.monotonic()
    while True:
        run.path.mkdir(parents=True, exist_ok=True)
        try:
            file: BufferedRandom = open_own(run.lock, "a+b")  # type: ignore[assignment]
        except FileNotFoundError:  # its owner has removed the directory meanwhile
            if time.monotonic() - begin > ENDS_S:
                raise
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), run.lock.stat()):
                    return file
            file.close()  # its owner has removed it meanwhile
        except BlockingIOError:
            file.close()
            other = holder(run)
            is_dead = other is not None and other.is_here and not other.is_alive
            if time.monotonic() - begin > (CHILDREN_END_S if is_dead else ENDS_S):
                raise _refusal(run, other) from None
            time.sleep(0.05)
        except OSError as error:
            if error.errno in NO_LOCKS:
                return file
            file.close()
            raise


def _take(file: BufferedRandom, run: RunDirectory) -> None:
    """Write this process into the lock file, unless the one in it must be believed to run."""
    other = holder(run)
    if other is not None and not _is_locked(file) and (not other.is_here or other.is_alive):
        raise _refusal(run, other)
    if other is not None and other.is_here:
        logger.info("%s: taken over from %s, which has ended", run.path, other)
    elif other is not None:
        logger.warning(
            "%s: taken over from %s, which has not released it. If it still runs, the file system "
            "does not share its locks among hosts: stop one of the two", run.path, other,
        )  # fmt: skip
    own = Holder(
        host=socket.gethostname(),
        pid=os.getpid(),
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        started=psutil.Process().create_time(),
    )
    file.truncate(0)
    file.write(json.dumps(asdict(own)).encode())
    file.flush()


def _is_locked(file: BufferedRandom) -> bool:
    """Return whether the file system has locks; taking the own one again changes nothing."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _refusal(run: RunDirectory, other: Holder | None) -> UserError:
    who = "another process" if other is None else str(other)
    gone = ""
    if other is not None and not other.is_here:
        gone = f" If it has ended without releasing the directory: rm {run.lock}"
    return UserError(
        f"{run.path}: {who}, works in this run directory (one process at a time may). Fix: wait "
        f"for its end, or stop it.{gone}"
    )
