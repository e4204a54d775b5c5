"""Build a benchmark of judgements without texts, to score run files of other systems."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from quarry.data.judgements import read_given_qrels
from quarry.errors import MissingPathError
from quarry.evaluation.benchmark import Benchmark, BenchmarkSet
from quarry.types import Query, RetrievalSet

_SUFFIXES = (".gz", ".tsv", ".txt", ".qrels")


def judgements_benchmark(
    qrels: str | Mapping[str, str], *, remove_self_match: bool = False
) -> Benchmark:
    """Return a benchmark of judgements alone, without queries' texts and without a corpus.

    Args:
        qrels: a file in any form of `data.judgements`, whose set has the file's name; or set ->
            file. A file with an unknown suffix is read as lines.
        remove_self_match: see `BenchmarkSet`.

    Raises:
        MissingPathError: a file does not exist.
    """
    named = qrels if isinstance(qrels, Mapping) else {_set_name(qrels): qrels}
    files = {str(name): str(file) for name, file in named.items()}
    for file in files.values():
        if not Path(file).expanduser().is_file():
            raise MissingPathError(
                f"task.qrels={file}: there is no such file (judgements in TREC's four columns or "
                "BEIR's three). Fix: check the path."
            )
    return Benchmark(
        name="judgements",
        sets=[
            BenchmarkSet(
                name=name,
                load=partial(_load, name, Path(file).expanduser()),
                remove_self_match=remove_self_match,
                ids_may_collide=True,
            )
            for name, file in files.items()
        ],
    )


def _set_name(file: str) -> str:
    name = Path(file).name
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name or Path(file).name


def _load(name: str, path: Path) -> RetrievalSet:
    qrels = read_given_qrels(path)
    queries = [Query(query_id=query_id, text="") for query_id in qrels]
    return RetrievalSet(name=name, queries=queries, corpus=[], qrels=qrels, source=path.name)
