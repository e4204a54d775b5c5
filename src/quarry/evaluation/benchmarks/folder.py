"""Any BEIR folder on disk, or a folder of them, as a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from quarry.data.beir import find_sets, find_split, read_beir
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
) -> Benchmark:
    """The collections under `path`.

    Args:
        path: a BEIR folder (corpus.jsonl, queries.jsonl, qrels/), or a folder of such folders.
        sets: names of the folders to take; null: all.
        split: which qrels/<split>.tsv.
        remove_self_match: see `BenchmarkSet`.
        content: "text" or "code"; how BM25 finds words.
        cache_dir: where memory-mapped copies are kept.

    Raises:
        MissingPathError: no folder or an empty path, or one that lacks the split.
        UserError: a name that is not there.
    """
    if path is None:
        raise MissingPathError(
            "benchmark.path is not set. benchmark=folder reads a BEIR folder, or a folder of them: "
            "benchmark.path=DIR."
        )
    found = {
        folder.name or folder.resolve().name: folder for folder in find_sets(given_folder(path))
    }
    chosen = list(found) if sets is None else list(sets)
    unknown = [name for name in chosen if name not in found]
    if unknown:
        raise UserError(
            f"benchmark.sets: {', '.join(unknown)} not found in {path}; it has {', '.join(found)}."
        )
    for name in chosen:
        find_split(path=found[name], split=split)
    return Benchmark(
        name="folder",
        sets=[
            BenchmarkSet(
                name=name,
                load=partial(
                    read_beir,
                    path=found[name],
                    split=split,
                    name=name,
                    content=content,
                    cache_dir=Path(cache_dir).expanduser(),
                ),
                remove_self_match=remove_self_match,
                ids_may_collide=True,
            )
            for name in chosen
        ],
    )
