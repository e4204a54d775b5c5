"""Judgements without texts as a benchmark: enough to score rankings that are given."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from quarry.data.judgements import read_qrels as read_beir_qrels
from quarry.errors import MissingPathError, UserError
from quarry.evaluation.benchmark import Benchmark, BenchmarkSet
from quarry.metrics.run_files import numbered_lines, read_qrels
from quarry.types import Qrels, Query, RetrievalSet

_SUFFIXES = (".gz", ".tsv", ".txt", ".qrels")


def judgements_benchmark(
    qrels: str | Mapping[str, str], *, remove_self_match: bool = False
) -> Benchmark:
    """Make a benchmark of judgements alone.

    Args:
        qrels: a file of TREC's four columns or of BEIR's three, `.gz` or plain; its set has the
            file's name. Or set -> file.
        remove_self_match: see `BenchmarkSet`.

    Raises:
        MissingPathError: a file is not there.
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


def read_judgements_of_either_form(path: Path) -> Qrels:
    """Read judgements of TREC's form or of BEIR's, which the first line tells.

    Raises:
        UserError: neither form, a malformed line, or no judgement above 0.
    """
    num_columns = next((len(line.split()) for _, line in numbered_lines(path) if line.strip()), 0)
    if num_columns == 3:
        return read_beir_qrels(path)
    if num_columns != 4:
        raise UserError(
            f"task.qrels={path}: {num_columns} columns in the first line (4: TREC's query-id "
            "iteration document-id grade, or 3: BEIR's query-id, corpus-id, score). Fix: write the "
            "file in one of the two forms."
        )
    qrels = read_qrels(path)
    if not any(grade > 0 for grades in qrels.values() for grade in grades.values()):
        raise UserError(
            f"task.qrels={path}: no judgement is positive (a grade above 0), so nothing can be "
            "found. Fix: check that it is the right file."
        )
    return qrels


def _set_name(file: str) -> str:
    name = Path(file).name
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name or Path(file).name


def _load(name: str, path: Path) -> RetrievalSet:
    qrels = read_judgements_of_either_form(path)
    queries = [Query(query_id=query_id, text="") for query_id in qrels]
    return RetrievalSet(name=name, queries=queries, corpus=[], qrels=qrels, source=path.name)
