"""A test collection in a folder of BEIR's layout becomes a `RetrievalSet`.

Its corpus is memory-mapped. `beir_folder` says which files it has, docs/data.md what is in them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from quarry.data.beir_folder import CORPUS, QUERIES, find_split, find_table
from quarry.data.caveats import checked_caveats, dropped_queries
from quarry.data.corpus import Corpus, open_corpus
from quarry.data.jsonl import find_file, read_jsonl
from quarry.data.judgements import read_qrels
from quarry.data.record_files import RECORD_FORMS, form_of, read_records
from quarry.data.records import (
    DOCUMENT_COLUMNS,
    DOCUMENT_IDS,
    QUERY_COLUMNS,
    Record,
    judged_queries,
    record_document,
    without_absent,
)
from quarry.types import Content, Qrels, Query, RetrievalSet

AbsentQueries = Literal["refuse", "drop"]


def read_corpus(*, path: Path | str, cache_dir: Path | str) -> Corpus:
    """Return the documents of a file: an id, `title` and `text`, under any of their usual names.

    Raises:
        MissingPathError: no such file.
        UserError: a malformed line, or an id that stands on two lines.
    """
    source = find_file(Path(path))
    if form_of(source) in RECORD_FORMS:
        records = read_records([source], DOCUMENT_COLUMNS)
    else:  # a corpus of training may have any name; it is JSONL then
        records = ((line, f"{source}:{line}", record) for line, record in read_jsonl(source))
    return open_corpus(
        sources=[source],
        documents=(
            (line, record_document(record, DOCUMENT_IDS, where)) for line, where, record in records
        ),
        cache_dir=cache_dir,
    )


def read_beir(
    *,
    path: Path | str,
    split: str,
    cache_dir: Path | str,
    name: str | None = None,
    content: Content = "text",
    absent_queries: AbsentQueries = "refuse",
) -> RetrievalSet:
    """Return one split of a BEIR folder, with the queries that it judges, in their file's order.

    Public sets hold empty documents, and judge documents that their corpus lacks. Both are kept
    (a missing document counts as one that no retriever finds) and are caveats of the set.

    Args:
        path: the folder of the set.
        split: of its qrels.
        cache_dir: where the memory-mapped corpus goes.
        name: of the set in reports; the folder's name if left out.
        content: what the corpus holds, for BM25.
        absent_queries: whether judged queries that are not among the queries are an error, or are
            dropped with their judgements and are a caveat.

    Raises:
        MissingPathError: the folder, a file or the split is not there.
        UserError: a malformed line; an id twice; a judged query that is empty or missing; no judged
            document in the corpus; no judgement above 0.
    """
    path = Path(path).expanduser()
    qrels_path = find_split(path=path, split=split)
    judged: Qrels = read_qrels(qrels_path)
    name = name or path.resolve().name
    caveats: tuple[str, ...] = ()
    qrels = judged
    if absent_queries == "drop":
        source = find_table(path, QUERIES)
        qrels = without_absent(judged, _records(source), source=source)
        caveats = dropped_queries(name=name, judged=judged, kept=qrels)
    queries = [query for _, query in read_judged_queries(path=path, qrels=qrels)]
    corpus = read_corpus(path=find_table(path, CORPUS), cache_dir=cache_dir)
    caveats += checked_caveats(name=name, qrels=qrels, where=qrels_path, corpus=corpus)
    return RetrievalSet(
        name=name,
        queries=queries,
        corpus=corpus,
        qrels=qrels,
        content=content,
        source=f"{path.resolve().name}, {split}",
        caveats=caveats,
    )


def read_judged_queries(*, path: Path, qrels: Qrels) -> Iterator[tuple[int, Query]]:
    """Yield line number and query of each judged query of a BEIR folder, in its file's order.

    Raises:
        UserError: a malformed line, an id twice, a judged query that is empty or is not there.
    """
    source = find_table(path, QUERIES)
    yield from judged_queries(_records(source), qrels=qrels, source=source)


def _records(source: Path) -> Iterator[Record]:
    return read_records([source], QUERY_COLUMNS)
