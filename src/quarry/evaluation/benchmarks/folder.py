"""Build a benchmark of a BEIR folder on disk, or of a folder of BEIR folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

from quarry.data.beir import AbsentQueries, read_beir
from quarry.data.beir_folder import find_sets, find_split
from quarry.errors import MissingPathError, UserError
from quarry.evaluation.benchmark import Benchmark, BenchmarkSet
from quarry.evaluation.benchmarks.given_path import given_folder
from quarry.types import Content


def folder_benchmark(
    *,
    path: str | None,
    sets: Sequence[str] | None,
    split: str,
    remove_self_match: bool,
    content: Content,
    cache_dir: str | Path,
    absent_queries: AbsentQueries = "refuse",
) -> Benchmark:
    """Return a benchmark of the collections under `path`.

    A collection that cannot be read fails when it is loaded, without affecting the others.

    Args:
        path: a BEIR folder (corpus.jsonl, queries.jsonl, qrels/), or a folder of such folders.
        sets: names of the folders to use; null: all that have any file of a set.
        split: name of the file qrels/<split>.tsv.
        remove_self_match: see `BenchmarkSet`.
        content: "text" or "code"; how BM25 finds words.
        cache_dir: folder of the memory-mapped copies.
        absent_queries: see `read_beir`; configurations of earlier versions lack it.

    Raises:
        MissingPathError: no folder or an empty path, or none of the sets has the split.
        UserError: a name does not exist, or `absent_queries` has an unknown value.
    """
    if path is None:
        raise MissingPathError(
            "benchmark.path is not set: benchmark=folder reads a BEIR folder, or a folder of them. "
            "Fix: benchmark.path=DIR."
        )
    if absent_queries not in get_args(AbsentQueries):
        raise UserError(
            f"benchmark.absent_queries={absent_queries}: unknown (refuse, drop). Fix: "
            "benchmark.absent_queries=refuse"
        )
    found = {
        folder.name or folder.resolve().name: folder for folder in find_sets(given_folder(path))
    }
    chosen = list(found) if sets is None else list(sets)
    unknown = [name for name in chosen if name not in found]
    if unknown:
        raise UserError(
            f"benchmark.sets: {', '.join(unknown)} not found in {path} (it has {', '.join(found)})."
        )
    _refuse_if_none_has(split, {name: found[name] for name in chosen})
    load = partial(
        read_beir,
        split=split,
        content=content,
        cache_dir=Path(cache_dir).expanduser(),
        absent_queries=absent_queries,
    )
    return Benchmark(
        name="folder",
        sets=[
            BenchmarkSet(
                name=name,
                load=partial(load, path=found[name], name=name),
                remove_self_match=remove_self_match,
                ids_may_collide=True,
            )
            for name in chosen
        ],
    )


def _refuse_if_none_has(split: str, folders: Mapping[str, Path]) -> None:
    """Refuse a `benchmark.split` that no set has, before anything is read."""
    reasons = []
    for folder in folders.values():
        try:
            find_split(path=folder, split=split)
        except UserError as error:
            reasons.append(str(error))
    if reasons and len(reasons) == len(folders):
        raise MissingPathError("\n".join(reasons))
