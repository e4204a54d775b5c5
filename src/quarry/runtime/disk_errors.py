"""Explain errors of full, over-quota and read-only disks, with the folder and the remedy."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from quarry.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM)

FULL_TEXTS = re.compile(
    r"No space left on device|Disk quota exceeded|PytorchStreamWriter failed writing|"
    r"inline_container\.cc.*unexpected pos"
)
"""Messages of libraries whose exceptions for a full disk have no error number.

torch's reader names `inline_container.cc` too, for checkpoints that are broken.
"""

MIN_BYTES = 2**20
"""A run writes more than that: configuration, logs, report, plots."""


NEARLY_FULL_BYTES = 2**30
"""Where no file is named, disks with less free are suspected."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A folder that a command writes to.

    Attributes:
        what: "the run directory".
        remedy: overrides that name another.
    """

    what: str
    path: Path
    remedy: str


def readable_size(num_bytes: float) -> str:
    """Return a number of bytes in a readable unit."""
    for unit, of in (("GiB", 2**30), ("MiB", 2**20)):
        if num_bytes >= of:
            return f"{num_bytes / of:.1f} {unit}"
    return f"{num_bytes / 2**10:.1f} KiB"


def free_bytes(folder: Path) -> int:
    """Return the free bytes where `folder` is, or would be."""
    folder = folder.expanduser().absolute()
    while not _exists(folder):
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _exists(path: Path) -> bool:
    """Return whether a path exists; False where a parent of it cannot be searched."""
    try:
        return path.exists()
    except PermissionError:
        return False


def check_place(place: Place, *, num_bytes: int, is_readable_alone: bool = False) -> None:
    """Refuse a folder that cannot be written to, before anything is computed.

    Args:
        num_bytes: that will be written at least.
        is_readable_alone: a folder that has something may be all that is needed.

    Raises:
        UserError: it cannot be created or written to, or its disk has less room.
    """
    path = place.path.expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{place.what}, {path}, cannot be created ({error.strerror}). Fix: {place.remedy}, a "
            "folder that can be written to."
        ) from error
    if is_readable_alone and any(path.iterdir()):
        return
    if not os.access(path, os.W_OK | os.X_OK):
        empty = " and is empty, so nothing can be read from it either" * is_readable_alone
        raise UserError(
            f"{place.what}, {path}, cannot be written to{empty}. Fix: {place.remedy}, a folder "
            "that can be."
        )
    free = free_bytes(path)
    if free < num_bytes:
        raise UserError(
            f"{place.what}, {path}, needs {readable_size(num_bytes)}, and its disk has "
            f"{readable_size(free)} free. Nothing was written. Fix: make room, or {place.remedy} "
            "on a larger disk."
        )


@contextlib.contextmanager
def explains_disk_errors(
    places: Callable[[], Sequence[Place]], *, how_to_continue: Callable[[], str]
) -> Iterator[None]:
    """Turn errors of full, quota-bound and read-only disks into messages.

    Args:
        places: returns the folders that the block writes to.
        how_to_continue: returns what is saved of the run, and the command that continues it.

    Raises:
        UserError: such an error.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        message = None if disk_message(error) is None else disk_message(error, places())
        if message is None:
            raise
        raise UserError(
            f"{message} What was there before is unchanged. {how_to_continue()}"
        ) from error


def disk_message(error: BaseException, places: Sequence[Place] = ()) -> str | None:
    """Return what is wrong with a disk, and what helps; None: the error is another one."""
    cause: BaseException | None = error
    while cause is not None:
        number = cause.errno if isinstance(cause, OSError) else None
        named = getattr(cause, "filename", None)
        file = Path(os.fsdecode(named)) if isinstance(named, str | bytes) else None
        if number in FULL or FULL_TEXTS.search(str(cause)):
            return _full(cause, file, places)
        if number in REFUSED and file is not None:
            if number == errno.EACCES and not _is_readable(file, places):
                return (
                    f"{file} cannot be read ({getattr(cause, 'strerror', None)}). Fix: permission "
                    "to read it (chmod), or another file."
                )
            if _is_refused(number, file):
                return _refused(cause, file, places)
        cause = cause.__cause__ or cause.__context__
    return None


def _full(error: BaseException, file: Path | None, places: Sequence[Place]) -> str:
    reason = getattr(error, "strerror", None) or "no space left on device"
    place = None if file is None else _place_of(file, places)
    if place is not None:
        what = place.what[0].lower() + place.what[1:]
        return (
            f"The disk of {what}, {place.path}, became full ({reason}; "
            f"{readable_size(free_bytes(place.path))} free). Fix: make room, or {place.remedy} on "
            "a larger disk."
        )
    free = {one.path: free_bytes(one.path) for one in places}
    fullest = [one for one in places if free[one.path] < NEARLY_FULL_BYTES] or places
    found = "".join(
        f" {one.what}, {one.path}, has {readable_size(free[one.path])} left (another: "
        f"{one.remedy})."
        for one in fullest
    )
    return f"A disk became full ({reason}). Fix: make room.{found}"


def _refused(error: BaseException, file: Path, places: Sequence[Place]) -> str:
    reason = getattr(error, "strerror", None)
    place = _place_of(file, places)
    if place is None:
        return (
            f"{file} cannot be written ({reason}). Fix: a folder that can be: hydra.run.dir=DIR, "
            "paths.cache_dir=DIR or paths.store_dir=DIR."
        )
    return (
        f"{place.what}, {place.path}, cannot be written to ({reason}: {file}). Fix: "
        f"{place.remedy}, a folder that can be."
    )


def _is_readable(file: Path, places: Sequence[Place]) -> bool:
    """Return whether a file can be read, or will be written where there is none yet."""
    if _exists(file):
        return os.access(file, os.R_OK)
    return _place_of(file, places) is not None or os.access(_folder_of(file), os.X_OK)


def _is_refused(number: int | None, file: Path) -> bool:
    """Return whether a file could not be written; a file that cannot be read is another error."""
    is_kept = _exists(file) and not os.access(file, os.W_OK)
    return number == errno.EROFS or is_kept or not os.access(_folder_of(file), os.W_OK)


def _folder_of(file: Path) -> Path:
    """Return the innermost folder of a file that exists."""
    folder = file.absolute().parent
    while not _exists(folder):
        folder = folder.parent
    return folder


def _place_of(file: Path, places: Sequence[Place]) -> Place | None:
    """Return the innermost place that a file is in."""
    file = file.absolute()
    within = [one for one in places if file.is_relative_to(one.path.expanduser().absolute())]
    return max(within, key=lambda one: len(one.path.parts), default=None)
