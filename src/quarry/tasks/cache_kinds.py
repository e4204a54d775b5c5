"""Describe what the cache holds, as data: a `Kind` for each sort of entry."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quarry.data.arrow_table import ArrowTable
from quarry.data.table_sources import SourceFile, sources_from_text
from quarry.models.backbones.fingerprint import is_known_as
from quarry.retrieval.cached_rankings import ABOUT
from quarry.retrieval.rerankers.score_cache import FOLDER as PAIR_SCORES
from quarry.retrieval.rerankers.score_cache import model_of_scores
from quarry.stand_ins.made_folder import PREFIXES
from quarry.tasks.own_cache_files import (
    all_of,
    leftovers,
    matching,
    model_folders,
    model_of_store,
    stores,
    tables,
    unneeded_notes,
    weights_in_contract,
)

State = Literal["unchanged", "changed", "gone", "-"]
"""Whether a source is what it was; "-": there is none, or it was not recorded."""

NOT_RECORDED = "not recorded"
_TABLES = "(corpus|examples|beir-examples)-[0-9a-f]{24}"
_RANKING = "[a-z0-9_]+-[0-9a-f]{24}"
_SCORES = "[0-9a-f]{24}"
_STORE = "[0-9a-f]{32}"
_NOTE = "[0-9a-f]{64}"
_MODEL = f"({'|'.join(PREFIXES)})-[0-9a-f]{{16}}"
_STDLIB = r"stdlib_code-v\d+-py\d[0-9a-z.+]*-[0-9a-f]{12}\.jsonl"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What an entry was made from, and whether that is still so."""

    source: str
    state: State


@dataclass(frozen=True, kw_only=True)
class Folders:
    """The folders of the configuration that hold caches."""

    cache: Path
    store: Path


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A sort of entry.

    Attributes:
        name: readable, and what `task.remove` takes.
        root: in which of the `Folders` it is.
        patterns: of its entries below that, see `own_cache_files.matching`.
        own: returns those of the matching files and folders that Quarry wrote.
        beside: suffixes of further files that belong to an entry, instead of its own.
        locks: pattern of lock files in the entry that are held while it is written.
        origin: returns what an entry was made from.
        rests_s: an entry that changed since may still be written, whether it is locked or not.
    """

    name: str
    root: Literal["cache", "store"]
    patterns: tuple[str, ...]
    origin: Callable[[Path], Origin]
    own: Callable[[Sequence[Path]], list[Path]] = all_of
    beside: tuple[str, ...] = ()
    locks: str | None = None
    rests_s: float = 0.0

    def paths(self, folders: Folders) -> Iterator[Path]:
        """Yield the entries of this kind."""
        root: Path = getattr(folders, self.root)
        yield from self.own(list(matching(root, self.patterns)))

    def files_of(self, path: Path) -> list[Path]:
        """Return the files or folders that an entry consists of."""
        return [path, *(one for s in self.beside if (one := path.with_suffix(s)).exists())]


def of_table(path: Path) -> Origin:
    """Return the files that a table of texts was built from."""
    try:
        return _of_files(ArrowTable(path, is_used=False).sources)
    except (OSError, ValueError):
        return Origin(source="damaged", state="changed")


def of_ranking(path: Path) -> Origin:
    """Return the collection that was ranked."""
    try:
        about = json.loads(path.with_suffix(ABOUT).read_text(encoding="utf-8"))
        name = about["source"] or about["set"]
        files = sources_from_text(json.dumps(about["files"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Origin(source=NOT_RECORDED, state="-")
    return Origin(source=str(name), state=_of_files(files).state)


def of_embeddings(path: Path) -> Origin:
    """Return the model that made the embeddings, and whether its weights are still those."""
    digests, model = weights_in_contract(path), model_of_store(path)
    if digests is None or model is None:
        return Origin(source=NOT_RECORDED, state="-")
    folder = Path(model)
    if not folder.is_absolute():  # of the hub
        return Origin(source=model, state="-")
    if not folder.is_dir():
        return Origin(source=model, state="gone")
    is_same = is_known_as(folder, digests, memo=path.parent / "weights")
    return Origin(source=model, state="unchanged" if is_same else "changed")


def of_pair_scores(path: Path) -> Origin:
    """Return the reranker that made the scores."""
    model = model_of_scores(path)
    if model is None:
        return Origin(source=NOT_RECORDED, state="-")
    is_gone = Path(model).is_absolute() and not Path(model).is_dir()
    return Origin(source=model, state="gone" if is_gone else "-")


def of_replica(path: Path) -> Origin:
    """Return what a small model is made from: nothing outside."""
    return Origin(source="made here", state="-")


def of_stdlib_code(path: Path) -> Origin:
    """Return the version of Python whose library was read."""
    version = path.name.partition("-py")[2].partition("-")[0]
    is_same = version == platform.python_version()
    return Origin(source=f"Python {version}", state="unchanged" if is_same else "changed")


def of_note(path: Path) -> Origin:
    """Return what is known of the hash of a model's file."""
    return Origin(source="hash of a file", state="-")


def of_unfinished(path: Path) -> Origin:
    """Return what is known of a file that a killed process has left."""
    return Origin(source="left by a killed process", state="-")


def _of_files(sources: tuple[SourceFile, ...]) -> Origin:
    if not sources:
        return Origin(source=NOT_RECORDED, state="-")
    more = f" and {len(sources) - 1} more" if len(sources) > 1 else ""
    states = {_state(source) for source in sources}
    worst: tuple[State, ...] = ("gone", "changed", "unchanged")
    return Origin(
        source=sources[0].path + more, state=next(state for state in worst if state in states)
    )


def _state(source: SourceFile) -> State:
    try:
        return "unchanged" if SourceFile.of(Path(source.path)) == source else "changed"
    except OSError:
        return "gone"


KINDS = (
    Kind(
        name="corpus", root="cache", patterns=(r"corpus-[0-9a-f]{24}\.arrow",),
        beside=(".ids.npy",), own=tables, origin=of_table,
    ),
    Kind(
        name="examples", root="cache", patterns=(r"(beir-)?examples-[0-9a-f]{24}\.arrow",),
        beside=(".ids.npy",), own=tables, origin=of_table,
    ),
    Kind(
        name="ranking", root="cache", patterns=(rf"rankings/{_RANKING}\.json",),
        beside=(ABOUT, ".lock"), origin=of_ranking,
    ),
    Kind(
        name="embeddings", root="store", patterns=(_STORE,), own=stores, locks="*/lock",
        origin=of_embeddings,
    ),
    Kind(
        name="pair_scores", root="cache", patterns=(f"{PAIR_SCORES}/{_SCORES}",),
        origin=of_pair_scores,
    ),
    Kind(
        name="reranker_hash", root="cache", patterns=(f"{PAIR_SCORES}/weights/{_NOTE}",),
        origin=of_note,
    ),
    Kind(
        name="weights_hash", root="store", patterns=(f"weights/{_NOTE}",), own=unneeded_notes,
        origin=of_note,
    ),
    Kind(
        name="replica", root="cache", patterns=(f"models/{_MODEL}",), own=model_folders,
        origin=of_replica,
    ),
    Kind(name="stdlib_code", root="cache", patterns=(_STDLIB,), origin=of_stdlib_code),
    Kind(
        name="unfinished", root="cache",
        patterns=(
            rf"\.{_TABLES}\.arrow\.\d+\.[0-9a-f]{{8}}(\.ids\.npy)?\.tmp",
            rf"\.{_TABLES}\.arrow\.\d+\.[0-9a-f]{{8}}\.ids\.npy",  # of earlier versions
            rf"{_TABLES}\.ids\.npy",
            rf"\.{_STDLIB}\.\d+\.tmp",
            rf"rankings/\.{_RANKING}\.(json|about)\.\d+\.tmp",
            f"models/{_MODEL}[a-z0-9_]{{8}}",
            rf"models/\.{_MODEL}\.removed\.tmp",
            rf"{PAIR_SCORES}/\.{_SCORES}\.removed\.tmp",
            rf"{PAIR_SCORES}/weights/\.{_NOTE}\.\d+\.tmp",
        ),
        beside=(".ids.npy", ".ids.npy.tmp"), own=leftovers, origin=of_unfinished, rests_s=300.0,
    ),
    Kind(
        name="unfinished", root="store",
        patterns=(rf"\.{_STORE}\.removed\.tmp", rf"weights/\.{_NOTE}\.\d+\.tmp"),
        origin=of_unfinished, rests_s=300.0,
    ),
)  # fmt: skip
"""All kinds of entries, in the order of the listing."""
