"""Build a benchmark of one set from a hub repository in the layout of mteb, BeIR or CoIR."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from quarry.data.hub_set import mteb_tables, read_hub_set
from quarry.errors import UserError
from quarry.evaluation.benchmark import Benchmark, BenchmarkSet
from quarry.types import Content


def hub_benchmark(
    *,
    repo: str | None,
    revision: str | None,
    qrels_repo: str | None,
    qrels_revision: str | None,
    subset: str | None,
    split: str,
    name: str | None,
    remove_self_match: bool,
    uses_title: bool,
    content: Content,
    cache_dir: str | Path,
) -> Benchmark:
    """Return a benchmark of one repository's collection.

    Args:
        repo: a data set of the hub, or a folder with a copy of one (beginning with . / or ~).
        revision, qrels_revision: full commit hashes; null: the newest.
        qrels_repo: repository of the judgements; null: `repo`.
        subset: prefix of its configurations' names ("python" of "python-corpus").
        split: split of the judgements.
        name: name in reports; null: the last part of `repo`, and the subset.
        remove_self_match, uses_title: see `BenchmarkSet`.
        content: "text" or "code"; how BM25 finds words.
        cache_dir: where the memory-mapped corpus is kept.

    Raises:
        UserError: there is no repo.
    """
    if repo is None:
        raise UserError(
            "benchmark.repo is not set: benchmark=hub reads a data set of the hub with corpus, "
            "queries and judgements. Fix: benchmark.repo=OWNER/NAME."
        )
    tables = mteb_tables(
        repo,
        split=split,
        revision=revision,
        qrels_repo=qrels_repo,
        qrels_revision=qrels_revision,
        subset=subset,
    )
    name = name or "-".join([Path(repo).name, *([subset] if subset else [])])
    load = partial(read_hub_set, tables=tables, name=name, content=content, cache_dir=cache_dir)
    return Benchmark(
        name="hub",
        sets=[
            BenchmarkSet(
                name=name,
                load=load,
                remove_self_match=remove_self_match,
                ids_may_collide=True,
                uses_title=uses_title,
                hub_files=tables.hub_files(used_by=name),
            )
        ],
    )
