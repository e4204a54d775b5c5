"""Check disk space for embeddings, and explain failed writes with sizes and remedies."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from quarry.errors import UserError
from quarry.runtime.disk_errors import FULL, readable_size

_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)


@dataclass(frozen=True, kw_only=True, slots=True)
class Remedies:
    """Remedies that a message names.

    Attributes:
        full: if the disk is full.
        refused: if the folder is not writable.
        written: what becomes of the embeddings that were written before the disk was full.
    """

    full: str
    refused: str
    written: str


def remedies_of_store(dtype: str) -> Remedies:
    """Return the remedies for the embedding store.

    Args:
        dtype: dtype of the store.
    """
    half = " evaluation.store_dtype=float16 takes half as much;" if dtype == "float32" else ""
    return Remedies(
        full="Make room (folders of the store can be deleted at any time), or name a larger disk, "
        f"paths.store_dir=DIR;{half} evaluation.store=false keeps embeddings in memory.",
        refused="Name a folder that can be, paths.store_dir=DIR, or keep embeddings in memory: "
        "evaluation.store=false.",
        written="The finished batches are kept: with more room the same command continues from "
        "there.",
    )


def remedies_of_corpus(dtype: str) -> Remedies:
    """Return the remedies for the file of a corpus beside a run.

    Args:
        dtype: dtype of the embeddings.
    """
    half = " evaluation.corpus_dtype=float16 takes half as much;" if dtype == "float32" else ""
    return Remedies(
        full="Make room, or start a run on a larger disk, hydra.run.dir=DIR;"
        f"{half} evaluation.corpus_on_disk=false keeps embeddings in memory, also with "
        "task=resume.",
        refused="Name a run directory that can be, hydra.run.dir=DIR, or keep embeddings in "
        "memory, also with task=resume: evaluation.corpus_on_disk=false.",
        written="None of them is left on disk.",
    )


def check_room(folder: Path, *, num_bytes: int, what: str, remedies: Remedies) -> None:
    """Raise before a write for which the disk has no space.

    Args:
        folder: an existing folder on the disk.
        num_bytes: bytes still to be written.
        what: what is written, such as "scifact corpus (5,183 texts)".

    Raises:
        UserError: there is less free space.
    """
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise UserError(
            f"The embeddings of {what} need {readable_size(num_bytes)} in {folder}, and its "
            f"disk has {readable_size(free)} free. {remedies.full}"
        )


@contextmanager
def explained(folder: Path, *, what: str, remedies: Remedies) -> Iterator[None]:
    """Turn the system's write errors into messages.

    Raises:
        UserError: the disk is full or not writable.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise UserError(
                f"The disk of {folder} became full ({error.strerror}) while the embeddings of "
                f"{what} were written. {remedies.written} {remedies.full}"
            ) from error
        if error.errno in _REFUSED:
            raise UserError(
                f"{folder} cannot be written to ({error.strerror}), and not all embeddings of "
                f"{what} are in there. {remedies.refused}"
            ) from error
        raise
