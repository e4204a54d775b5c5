"""Build benchmarks of public test collections, from the hub or from BEIR folders on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from quarry.data.beir import read_beir
from quarry.data.beir_folder import find_split, is_beir_folder
from quarry.data.hub_set import read_hub_set
from quarry.errors import MissingPathError
from quarry.evaluation.benchmark import Benchmark, BenchmarkSet
from quarry.evaluation.benchmarks.beir_sets import BEIR_SETS
from quarry.evaluation.benchmarks.catalogue import PublicSet, pick
from quarry.evaluation.benchmarks.coir_sets import COIR_SETS
from quarry.evaluation.benchmarks.given_path import given_folder
from quarry.evaluation.benchmarks.msmarco_sets import MSMARCO_SETS
from quarry.types import RetrievalSet

PUBLIC_SETS = (*BEIR_SETS, *COIR_SETS, *MSMARCO_SETS)


def suite_benchmark(
    *,
    name: str,
    members: Sequence[str],
    sets: Sequence[str] | None,
    path: str | None,
    check_counts: bool,
    cache_dir: str | Path,
) -> Benchmark:
    """Return a benchmark of some `PUBLIC_SETS`, at their pinned hub commits or all from a folder.

    Args:
        name: name of the suite.
        members: names of its sets and groups, in the order of reports.
        sets: which of these to use (a group's name stands for its parts); null: all.
        path: a folder of BEIR folders, named after the sets (a part's may be GROUP/PART), or the
            folder of one set; null: from the hub. With a path nothing comes from the hub.
        check_counts: whether counts that differ from the published ones are an error.
        cache_dir: folder of the memory-mapped corpora.

    Raises:
        UserError: an unknown name; a folder that lacks a set or its split.
    """
    suite = pick(members, PUBLIC_SETS, key="benchmark.members")
    chosen = suite if sets is None else pick(sets, suite, key="benchmark.sets")
    if path is None:
        loaders = [partial(_read_from_hub, one, cache_dir=cache_dir) for one in chosen]
    else:
        found = find_folders(chosen, given_folder(path))
        chosen = list(found)
        loaders = [
            partial(_read_from_folder, one, folder, cache_dir=cache_dir)
            for one, folder in found.items()
        ]
    return Benchmark(
        name=name,
        sets=[
            _benchmark_set(one, load, check_counts=check_counts, is_on_hub=path is None)
            for one, load in zip(chosen, loaders, strict=True)
        ],
    )


def find_folders(chosen: Sequence[PublicSet], path: Path) -> dict[PublicSet, Path]:
    """Return the BEIR folder of each set; if `path` is a BEIR folder itself, its one set.

    Raises:
        MissingPathError: there is no such folder, or no folder or no split for some of the sets.
    """
    if not path.is_dir():
        raise MissingPathError(f"benchmark.path={path}: no such folder. Fix: check the path")
    if is_beir_folder(path):
        folders = {_only(chosen, path): path}
    else:
        found = {one: _folder_in(path, one) for one in chosen}
        folders = {one: folder for one, folder in found.items() if folder is not None}
        missing = [one.name for one in chosen if one not in folders]
        if missing:
            here = f"[{','.join(one.name for one in folders)}]" if folders else "those that are"
            raise MissingPathError(
                f"benchmark.path={path} has no BEIR folder (corpus.jsonl, queries.jsonl, qrels/) "
                f"of {', '.join(missing)}. With a path nothing is taken from the hub. Fix: add "
                f"what is missing, or benchmark.sets={here}."
            )
    for one, folder in folders.items():
        find_split(path=folder, split=one.split)
    return folders


def _only(chosen: Sequence[PublicSet], path: Path) -> PublicSet:
    """Return the set of a single BEIR folder: the only one chosen, else that of its name."""
    if len(chosen) == 1:
        return chosen[0]
    name = path.resolve().name
    for one in chosen:
        if name == one.name:
            return one
    raise MissingPathError(
        f"benchmark.path={path} is the folder of one set, and none of {len(chosen)} is called "
        f"{name}. Fix: benchmark.sets=[NAME] of the set, or give a folder of such folders"
    )


def _folder_in(path: Path, one: PublicSet) -> Path | None:
    places = [path / one.name]
    if one.group is not None:
        places.append(path / one.group / one.name.removeprefix(f"{one.group}-"))
    return next((place for place in places if is_beir_folder(place)), None)


def _benchmark_set(
    one: PublicSet, load: Callable[[], RetrievalSet], *, check_counts: bool, is_on_hub: bool
) -> BenchmarkSet:
    return BenchmarkSet(
        name=one.name,
        load=load,
        remove_self_match=one.remove_self_match,
        ids_may_collide=one.ids_may_collide,
        uses_title=one.uses_title,
        relevance_level=one.relevance_level,
        licence=one.licence,
        expected=one.expected if check_counts else None,
        group=one.group,
        corpus=one.tables.corpus,
        mean_characters=one.mean_characters if check_counts else None,
        pages=one.pages,
        hub_files=one.tables.hub_files(used_by=one.name) if is_on_hub else (),
    )


def _read_from_hub(one: PublicSet, *, cache_dir: str | Path) -> RetrievalSet:
    return read_hub_set(tables=one.tables, name=one.name, content=one.content, cache_dir=cache_dir)


def _read_from_folder(one: PublicSet, folder: Path, *, cache_dir: str | Path) -> RetrievalSet:
    return read_beir(
        path=folder, split=one.split, name=one.name, content=one.content, cache_dir=cache_dir
    )
