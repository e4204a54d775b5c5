"""Read a test collection from a folder in BEIR's layout into a `RetrievalSet`.

Its corpus is memory-mapped. `beir_folder` lists the files, docs/data.md their contents.
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
    """Return the documents of a file: id, `title` and `text`, under any of their usual keys.

    Raises:
        MissingPathError: no such file.
        UserError: a malformed line, or an id that occurs twice.
    """
    source = find_file(Path(path))
    if form_of(source) in RECORD_FORMS:
        records = read_records([source], DOCUMENT_COLUMNS)
    else:  # a training corpus may have any name and is JSONL then
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
    """Return one split of a BEIR folder, with its judged queries in the order of their file.

    Public sets have empty documents, and judge documents that their corpus lacks. Both stay: a
    missing document counts as one that no retriever finds. The set's caveats report them.

    Args:
        path: the set's folder.
        split: split of the qrels.
        cache_dir: folder for the memory-mapped corpus.
        name: name of the set in reports; None: the folder's name.
        content: kind of corpus, for BM25.
        absent_queries: what to do about judged queries that are not in the queries file: "refuse"
            raises, "drop" removes them with their judgements and reports a caveat.

    Raises:
        MissingPathError: the folder, a file or the split does not exist.
        UserError: a malformed line; a repeated id; a judged query that is empty or missing; no
            judged document in the corpus; no judgement above 0.
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
        UserError: a malformed line, a repeated id, a judged query that is empty or missing.
    """
    source = find_table(path, QUERIES)
    yield from judged_queries(_records(source), qrels=qrels, source=source)


def _records(source: Path) -> Iterator[Record]:
    return read_records([source], QUERY_COLUMNS)
