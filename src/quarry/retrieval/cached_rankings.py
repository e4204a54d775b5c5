"""Cache rankings without a model (BM25) on disk, keyed by everything on which they depend.

Every run of a sweep compares its model with the same baseline; so do the parts of a hybrid.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

from quarry.data.table_sources import sources_as_text
from quarry.runtime.cache_use import CacheUse
from quarry.runtime.files import replacing, write_json
from quarry.runtime.lock import locked
from quarry.types import RetrievalSet, Run

logger = logging.getLogger(__name__)

FORMAT = 1

ABOUT = ".about"
"""Suffix of the file beside a ranking that says what it is of, for people and `task=cache`."""


class CachedRankings:
    """Cache folder of rankings, one file each.

    If several processes need the same ranking, one computes it and the others wait for it.

    Args:
        folder: created with the first ranking. It may be deleted at any time.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.expanduser()

    def get(
        self, make: Callable[[], Run], *, dataset: RetrievalSet, method: str, **facts: object
    ) -> Run:
        """Return the cached ranking of `dataset` for these facts; else cache and return `make()`.

        Args:
            method: first part of the file's name, for people who look into the folder.
            facts: everything besides the texts on which the ranking depends, as plain data.
        """
        key = _digest([FORMAT, method, facts, texts_digest(dataset)])[:24]
        path = self.folder / f"{method}-{key}.json"
        with nullcontext() if path.exists() else self._right_to_make(path):
            kept = _read(path)
            if kept is not None:
                CacheUse(path)
                logger.info("%s: the ranking of %s is cached in %s", method, dataset.name, path)
                return kept
            run = make()
            try:
                with replacing(path) as partial:
                    partial.touch()
                    use = CacheUse(partial)
                    partial.write_text(json.dumps(run), encoding="utf-8")
                del use
                write_json(path.with_suffix(ABOUT), _about(dataset))
            except OSError as error:
                self._warn(error)
        return run

    @contextmanager
    def _right_to_make(self, path: Path) -> Iterator[None]:
        with ExitStack() as held:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                lock = locked(path.with_suffix(".lock"), what=f"the ranking {path.name}")
                held.enter_context(lock)
            except OSError as error:  # said before the ranking is made
                self._warn(error)
            yield

    def _warn(self, error: OSError) -> None:
        logger.warning(
            "%s cannot be written to (%s): the ranking is used, and not cached. Fix: make room, or "
            "paths.cache_dir=DIR",
            self.folder,
            error.strerror,
        )


def _about(dataset: RetrievalSet) -> dict[str, object]:
    """Return what a ranking is of: the set, where it is from, and the files of its corpus."""
    sources = getattr(dataset.corpus, "sources", ())
    return {
        "set": dataset.name,
        "source": dataset.source,
        "files": json.loads(sources_as_text(sources)),
    }


def texts_digest(dataset: RetrievalSet) -> str:
    """Return a digest of all ids, titles and texts of a collection in order, and of its content.

    Reads the corpus once; the judgements are not part of it.
    """
    digest = hashlib.blake2b(digest_size=16)
    for query in dataset.queries:
        digest.update(_framed(query.query_id, query.text))
    digest.update(f"corpus of {dataset.content}".encode())
    for document in dataset.corpus:
        digest.update(_framed(document.document_id, document.title, document.text))
    return digest.hexdigest()


def code_digest(modules: Iterable[ModuleType]) -> str:
    """Return a digest of these modules' source, so that a change of code invalidates rankings."""
    return _digest([inspect.getsource(module) for module in modules])


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Return package -> its installed version."""
    return {package: version(package) for package in packages}


def _framed(*parts: str) -> bytes:
    """Join the parts behind their lengths, so that different parts never give equal bytes."""
    lengths = " ".join(str(len(part)) for part in parts)
    return f"{lengths}:{''.join(parts)}".encode("utf-8", "surrogatepass")


def _digest(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> Run | None:
    """Return the ranking in a file; None if there is no file, or no ranking in it."""
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(scores, Mapping) for scores in run.values()):
            raise ValueError("not a ranking")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError) as error:
        logger.warning("%s is damaged (%s); the ranking is computed again", path, error)
        return None
    return dict(run)
