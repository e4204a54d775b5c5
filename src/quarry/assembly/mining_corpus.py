"""Read the passages that hard negatives are mined from, where they are not the training data's."""

from __future__ import annotations

from pathlib import Path

from quarry.data.beir import read_corpus
from quarry.data.beir_folder import CORPUS, find_table
from quarry.data.corpus import Corpus
from quarry.errors import MissingPathError


def check_mining_corpus(path: str | None, *, key: str) -> None:
    """Refuse a path that does not exist.

    Args:
        key: of the path, for messages.
    """
    if path is not None and not Path(path).expanduser().exists():
        raise MissingPathError(f"{key}={path}: no such file or folder. Fix: its path, or null")


def read_mining_corpus(path: Path, *, cache_dir: str | Path, key: str) -> Corpus:
    """Return the documents of a BEIR folder, or of a file of documents.

    Raises:
        MissingPathError: there is no such path.
        UserError: a malformed line, or an id that occurs twice.
    """
    check_mining_corpus(str(path), key=key)
    path = path.expanduser()
    source = find_table(path, CORPUS) if path.is_dir() else path
    return read_corpus(path=source, cache_dir=cache_dir)
