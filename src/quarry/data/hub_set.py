"""Read a `RetrievalSet` from three tables on the hub: corpus, queries and judgements.

    mteb/NAME           configurations corpus, queries and default (judgements, a split each)
    BeIR/NAME           configurations corpus and queries; judgements in BeIR/NAME-qrels
    CoIR-Retrieval/NAME as mteb's; CodeSearchNet's are LANG-corpus, LANG-queries and LANG-qrels;
                        coir-eval's are splits of NAME-queries-corpus and of NAME-qrels
    Tevatron/NAME       files of docid, title, text and of query_id, query, without a card

Ids are cast to strings.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from quarry.data.caveats import checked_caveats
from quarry.data.corpus import open_corpus
from quarry.data.hub_tables import HubTable, find_table_files, newest_commit
from quarry.data.judgements import read_judgements
from quarry.data.record_files import read_records
from quarry.data.records import (
    DOCUMENT_COLUMNS,
    DOCUMENT_IDS,
    QUERY_COLUMNS,
    collect_qrels,
    judged_queries,
    record_document,
)
from quarry.runtime.hub_files import HubFiles
from quarry.types import Content, RetrievalSet

_LARGE = ("*corpus*",)
"""Patterns of files that queries and judgements do not need."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HubTables:
    """Locations of the three tables of a test collection on the hub."""

    corpus: HubTable
    queries: HubTable
    qrels: HubTable

    @property
    def source(self) -> str:
        """Repository, commit and split for people; of each table if they differ."""
        split = self.qrels.splits[0]
        places = [self.corpus.place, self.queries.place, self.qrels.place]
        if len(set(places)) == 1:
            return f"{places[0]}, {split}"
        corpus, queries, qrels = places
        return f"corpus {corpus}; queries {queries}; judgements {qrels}, {split}"

    def hub_files(self, *, used_by: str) -> tuple[HubFiles, ...]:
        """Return what `read_hub_set` fetches from the hub."""
        tables = (self.qrels, self.queries, self.corpus)
        return tuple(files for table in tables for files in table.hub_files(used_by=used_by))


def read_hub_set(
    *,
    tables: HubTables,
    name: str,
    content: Content,
    cache_dir: Path | str,
) -> RetrievalSet:
    """Return a test collection of the hub with its judged queries, in the order of their table.

    Judgements and queries are read first: they are small, and errors in them are found before a
    large corpus is fetched. Documents that are empty, or judged and missing, are reported as
    caveats of the set, as in `read_beir`.

    Args:
        tables: locations of the tables. One without a commit is read at the newest, with a warning.
        name: name of the set in reports.
        content: kind of corpus, for BM25.
        cache_dir: folder for the memory-mapped corpus.

    Raises:
        UserError: see `find_table_files`; a repeated id; a judged query that is empty or missing;
            no judged document in the corpus; no judgement above 0; a malformed record.
    """
    tables = _pinned(tables)
    qrels_files = find_table_files(tables.qrels)
    grades = collect_qrels(lambda: read_judgements(qrels_files), source=tables.qrels)
    query_records = read_records(find_table_files(tables.queries), QUERY_COLUMNS)
    judged = judged_queries(query_records, qrels=grades, source=tables.queries)
    kept = [query for _, query in judged]
    sources = find_table_files(tables.corpus)
    documents = open_corpus(
        sources=sources,
        documents=(
            (line, record_document(record, DOCUMENT_IDS, where))
            for line, where, record in read_records(sources, DOCUMENT_COLUMNS)
        ),
        cache_dir=cache_dir,
    )
    caveats = checked_caveats(name=name, qrels=grades, where=tables.qrels, corpus=documents)
    return RetrievalSet(
        name=name,
        queries=kept,
        corpus=documents,
        qrels=grades,
        content=content,
        source=tables.source,
        caveats=caveats,
    )


def _pinned(tables: HubTables) -> HubTables:
    """Return the tables at commits: tables without one share the newest commit of today."""
    commits: dict[tuple[str, str | None], str] = {}
    for table in (tables.qrels, tables.queries, tables.corpus):  # small ones first
        key = (table.repo, table.revision)
        if not table.is_pinned and key not in commits:
            commits[key] = newest_commit(table)

    def at_commit(table: HubTable) -> HubTable:
        return replace(table, revision=commits.get((table.repo, table.revision), table.revision))

    return HubTables(
        corpus=at_commit(tables.corpus),
        queries=at_commit(tables.queries),
        qrels=at_commit(tables.qrels),
    )


def mteb_tables(
    repo: str,
    *,
    split: str,
    revision: str | None = None,
    qrels_repo: str | None = None,
    qrels_revision: str | None = None,
    subset: str | None = None,
) -> HubTables:
    """Return the tables of a repository in mteb's, BeIR's or CoIR's layout, for `read_hub_set`.

    Args:
        split: split of the judgements; "dev" is also found as "validation", which `datasets` uses.
        qrels_repo, qrels_revision: repository of the judgements; None: `repo`. If the judgements
            have their own repository, `repo` may have corpus and queries as splits of one
            configuration.
        subset: prefix of the names of the configurations ("python" of "python-corpus").
    """
    prefix = "" if subset is None else f"{subset}-"
    splits = (split, "validation") if split == "dev" else (split,)
    other: tuple[str, ...] = () if qrels_repo is None else ("default",)
    if qrels_repo is None:
        qrels_repo, qrels_revision = repo, revision
    return HubTables(
        corpus=HubTable(
            repo=repo,
            revision=revision,
            configs=(f"{prefix}corpus", *other),
            splits=(*splits, "corpus"),
        ),
        queries=HubTable(
            repo=repo,
            revision=revision,
            configs=(f"{prefix}queries", *other),
            splits=(*splits, "queries"),
            skips=() if other else _LARGE,  # the files of a configuration belong together
        ),
        qrels=HubTable(
            repo=qrels_repo,
            revision=qrels_revision,
            configs=(f"{prefix}qrels",) if subset else ("default", "qrels"),
            splits=splits,
            skips=_LARGE,
        ),
    )
