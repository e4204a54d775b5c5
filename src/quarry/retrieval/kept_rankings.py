"""Rankings that no model has a part in are made once: kept in a file under all that they hang on.

Every run of a sweep compares its model with the same baseline; so do the parts of a hybrid.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

from quarry.runtime.files import replacing
from quarry.runtime.lock import locked
from quarry.types import RetrievalSet, Run

logger = logging.getLogger(__name__)

FORMAT = 1


class KeptRankings:
    """A folder of rankings, one file each; of several processes at once one makes a ranking, and
    the others wait for it.

    Args:
        folder: made when the first ranking is kept. It may be deleted at any time.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.expanduser()

    def get(
        self, make: Callable[[], Run], *, dataset: RetrievalSet, method: str, **facts: object
    ) -> Run:
        """The ranking of `dataset` that is kept under these facts; else `make()`, which is kept.

        Args:
            method: first part of the file's name, for people who look into the folder.
            facts: all that the ranking depends on besides the texts, as plain data.
        """
        key = _digest([FORMAT, method, facts, texts_digest(dataset)])[:24]
        path = self.folder / f"{method}-{key}.json"
        with nullcontext() if path.exists() else self._right_to_make(path):
            kept = _read(path)
            if kept is not None:
                logger.info("%s: the ranking of %s is kept in %s", method, dataset.name, path)
                return kept
            run = make()
            with replacing(path) as partial:
                partial.write_text(json.dumps(run), encoding="utf-8")
        return run

    @contextmanager
    def _right_to_make(self, path: Path) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(path.with_suffix(".lock"), what=f"the ranking {path.name}"):
            yield


def texts_digest(dataset: RetrievalSet) -> str:
    """Of all ids, titles and texts of a collection in their order, and of what they hold.

    Reads the corpus once; the judgements have no part in it.
    """
    digest = hashlib.blake2b(digest_size=16)
    for query in dataset.queries:
        digest.update(_framed(query.query_id, query.text))
    digest.update(f"corpus of {dataset.content}".encode())
    for document in dataset.corpus:
        digest.update(_framed(document.document_id, document.title, document.text))
    return digest.hexdigest()


def code_digest(modules: Iterable[ModuleType]) -> str:
    """Of the source of these modules: a ranking of other code is not taken for one of this."""
    return _digest([inspect.getsource(module) for module in modules])


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Package -> its installed version."""
    return {package: version(package) for package in packages}


def _framed(*parts: str) -> bytes:
    """The parts with their lengths before them, so that no two rows of parts look alike."""
    lengths = " ".join(str(len(part)) for part in parts)
    return f"{lengths}:{''.join(parts)}".encode("utf-8", "surrogatepass")


def _digest(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> Run | None:
    """None where there is no file, or none that holds a ranking."""
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(scores, Mapping) for scores in run.values()):
            raise ValueError("not a ranking")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError) as error:
        logger.warning("%s is damaged (%s); the ranking is made anew", path, error)
        return None
    return dict(run)
