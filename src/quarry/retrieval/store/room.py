"""A store that cannot be written to says what is needed, what is there and what can be done."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quarry.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)


def check_room(folder: Path, *, num_bytes: int, what: str, dtype: str) -> None:
    """Refuses to begin what the disk has no room for.

    Args:
        folder: of the store; it exists.
        num_bytes: that are still to be written.
        what: is written, such as "scifact corpus (5,183 texts)".
        dtype: that vectors are stored in.

    Raises:
        UserError: there is less free space.
    """
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise UserError(
            f"The embeddings of {what} need {_size(num_bytes)} in {folder}, and its disk has "
            f"{_size(free)} free. {_remedies(dtype)}"
        )


@contextmanager
def explained(folder: Path, *, what: str, dtype: str) -> Iterator[None]:
    """Turns the system's refusals to write into messages; what was finished stays finished.

    Raises:
        UserError: the disk is full, or may not be written to.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise UserError(
                f"The disk of {folder} became full ({error.strerror}) while the embeddings of "
                f"{what} were written. The batches that are finished are kept: with more room the "
                f"same command goes on from there. {_remedies(dtype)}"
            ) from error
        if error.errno in _REFUSED:
            raise UserError(
                f"{folder} cannot be written to ({error.strerror}), and not all embeddings of "
                f"{what} are in there. Name a folder that can be, paths.store_dir=DIR, or keep "
                "embeddings in memory: evaluation.store=false."
            ) from error
        raise


def _remedies(dtype: str) -> str:
    half = " evaluation.store_dtype=float16 takes half as much;" if dtype == "float32" else ""
    return (
        "Make room (folders of the store can be deleted at any time), or name a larger disk, "
        f"paths.store_dir=DIR;{half} evaluation.store=false keeps embeddings in memory."
    )


def _size(num_bytes: int) -> str:
    """In the unit that leaves a number to be read: a test collection may be small."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes / 2**10:.1f} KiB"
