"""Describe what the cache holds, as data: a `Kind` for each sort of entry."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quarry.data.arrow_table import ArrowTable
from quarry.data.table_sources import SourceFile, sources_from_text
from quarry.models.backbones.fingerprint import is_known_as
from quarry.retrieval.cached_rankings import ABOUT
from quarry.retrieval.store.shelf import CONTRACT

State = Literal["unchanged", "changed", "gone", "-"]
"""Whether a source is what it was; "-": there is none, or it was not recorded."""

NOT_RECORDED = "not recorded"
_HEX = "[0-9a-f]"


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
        patterns: of its entries below that: a file or a folder each.
        beside: suffixes of further files that belong to an entry, instead of its own.
        locks: pattern of lock files in the entry that are held while it is written.
        origin: returns what an entry was made from.
        rests_s: an entry that changed since may still be written, whether it is locked or not.
    """

    name: str
    root: Literal["cache", "store"]
    patterns: tuple[str, ...]
    origin: Callable[[Path], Origin]
    beside: tuple[str, ...] = ()
    locks: str | None = None
    rests_s: float = 0.0

    def paths(self, folders: Folders) -> Iterator[Path]:
        """Yield the entries of this kind."""
        root: Path = getattr(folders, self.root)
        for pattern in self.patterns:
            for path in sorted(root.glob(pattern)):
                # of an embedding store the pattern names a file that every folder of it has
                yield path.parent if path.name == CONTRACT else path

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
    try:
        digests = json.loads((path / CONTRACT).read_text(encoding="utf-8"))["weights"]
        manifests = sorted(path.glob("*/manifest.json"))
        made_by = json.loads(manifests[0].read_text(encoding="utf-8"))["made_by"]
        model = str(made_by["model"])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return Origin(source=NOT_RECORDED, state="-")
    folder = Path(model)
    if not folder.is_absolute():  # of the hub
        return Origin(source=model, state="-")
    if not folder.is_dir():
        return Origin(source=model, state="gone")
    is_same = is_known_as(folder, digests, memo=path.parent / "weights")
    return Origin(source=model, state="unchanged" if is_same else "changed")


def of_replica(path: Path) -> Origin:
    """Return what a small model is made from: nothing outside."""
    return Origin(source="made here", state="-")


def of_stdlib_code(path: Path) -> Origin:
    """Return the version of Python whose library was read."""
    version = path.name.partition("-py")[2].partition("-")[0]
    is_same = version == platform.python_version()
    return Origin(source=f"Python {version}", state="unchanged" if is_same else "changed")


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
        name="corpus", root="cache", patterns=("corpus-*.arrow",), beside=(".ids.npy",),
        origin=of_table,
    ),
    Kind(
        name="examples", root="cache", patterns=("examples-*.arrow", "beir-examples-*.arrow"),
        beside=(".ids.npy",), origin=of_table,
    ),
    Kind(
        name="ranking", root="cache", patterns=("rankings/*.json",), beside=(ABOUT, ".lock"),
        origin=of_ranking,
    ),
    Kind(
        name="embeddings", root="store", patterns=(f"*/{CONTRACT}",), locks="*/lock",
        origin=of_embeddings,
    ),
    Kind(name="replica", root="cache", patterns=(f"models/*-{_HEX * 16}",), origin=of_replica),
    Kind(
        name="stdlib_code", root="cache", patterns=("stdlib_code-*.jsonl",), origin=of_stdlib_code
    ),
    Kind(
        name="unfinished", root="cache",
        patterns=(".*.tmp", "rankings/.*.tmp", f"models/*-{_HEX * 16}????????"),
        beside=(".ids.npy",), origin=of_unfinished, rests_s=300.0,
    ),
)  # fmt: skip
"""All kinds of entries, in the order of the listing."""
