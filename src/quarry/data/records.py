"""Parse the records of a test collection: documents, judged queries and judgements."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from quarry.data.jsonl import record_id, record_text, shown
from quarry.errors import UserError
from quarry.types import Document, Qrels, Query

Record = tuple[int, str, dict[str, Any]]
"""A record: line (counted through all files of a table), "file:line", keys and values."""

Judgement = tuple[str, str, str, int]
"""A judgement: place ("file:line"), query id, document id, grade."""


DOCUMENT_IDS = ("_id", "id", "docid", "doc_id", "document_id")
QUERY_IDS = ("_id", "id", "query_id", "query-id", "qid")
"""Keys of an id; the first of them that a record has is used."""

DOCUMENT_TEXTS = ("text", "contents")
QUERY_TEXTS = ("text", "query", "contents")
"""Keys of a text. Pyserini's `contents` has title and text in one: all of it is text."""

DOCUMENT_COLUMNS = (*DOCUMENT_IDS, "title", *DOCUMENT_TEXTS)
QUERY_COLUMNS = (*QUERY_IDS, *QUERY_TEXTS)


def record_document(
    record: dict[str, Any],
    keys: Sequence[str],
    where: str,
    *,
    texts: Sequence[str] = DOCUMENT_TEXTS,
    title: str = "title",
) -> Document:
    """Return a document: id (under the first of `keys` that exists), text and optional title."""
    document_id = record_id(record, keys, where)
    text = record_text(record, _key(record, texts), where)
    name = "" if record.get(title) is None else record_text(record, title, where)
    return Document(document_id=document_id, title=name, text=text)


def judged_queries(
    records: Iterable[Record], *, qrels: Qrels, source: object
) -> Iterator[tuple[int, Query]]:
    """Yield line number and query of each judged query, in the order of the records.

    Args:
        records: all queries, under the keys of `QUERY_COLUMNS`.
        qrels: judgements; queries without one are skipped.
        source: name of what holds the queries, for messages.

    Raises:
        UserError: a repeated id, a judged query that is empty or missing.
    """
    lines: dict[str, int] = {}
    for line, where, record in records:
        query_id = record_id(record, QUERY_IDS, where)
        if query_id in lines:
            raise UserError(
                f"{where}: the id {shown(query_id)} stands on line {lines[query_id]} already; "
                "ids must differ: remove or rename one"
            )
        lines[query_id] = line
        if query_id in qrels:
            text = record_text(record, _key(record, QUERY_TEXTS), where)
            if not text.strip():
                raise UserError(
                    f"{where}: query {shown(query_id)} is empty; give it a text, or remove it here "
                    "and from the qrels"
                )
            yield line, Query(query_id=query_id, text=text)
    missing = [query_id for query_id in qrels if query_id not in lines]
    if missing:
        raise UserError(
            f"{source}: {len(missing)} of {len(qrels)} judged queries are not there, the first is "
            f"{shown(missing[0])}; add them, or remove their judgements (of a folder: "
            "benchmark.absent_queries=drop continues without them)"
        )


def without_absent(qrels: Qrels, records: Iterable[Record], *, source: object) -> Qrels:
    """Return the judgements of the queries that exist.

    Raises:
        UserError: none of them has a judgement above 0, so nothing would be left to evaluate.
    """
    present = {record_id(record, QUERY_IDS, where) for _, where, record in records}
    kept = {query_id: grades for query_id, grades in qrels.items() if query_id in present}
    if not any(grade > 0 for grades in kept.values() for grade in grades.values()):
        raise UserError(
            f"{source}: none of its queries has a judgement above 0; check that queries and qrels "
            "belong together"
        )
    return kept


def _key(record: dict[str, Any], keys: Sequence[str]) -> str:
    """Return the first of the keys that the record has, or the first key if it has none."""
    for key in keys:
        if key in record:
            return key
    return keys[0]


def collect_qrels(
    judgements: Callable[[], Iterable[Judgement]], *, source: object
) -> dict[str, dict[str, int]]:
    """Collect query id -> document id -> grade, in the given order; a repetition counts once.

    Args:
        judgements: yields them; called again to find where a contradiction began.
        source: name of what holds them, for messages.

    Raises:
        UserError: two different grades for one pair, or no grade above 0 at all.
    """
    qrels: dict[str, dict[str, int]] = {}
    for where, query_id, document_id, grade in judgements():
        if qrels.setdefault(query_id, {}).setdefault(document_id, grade) != grade:
            first = next(w for w, *pair, _ in judgements() if pair == [query_id, document_id])
            raise UserError(
                f"{where}: query {shown(query_id)} and document {shown(document_id)} have another "
                f"grade on line {first.rpartition(':')[2]}; keep one of the two"
            )
    if not any(grade > 0 for judged in qrels.values() for grade in judged.values()):
        raise UserError(
            f"{source}: no judgement is positive (grade above 0), so nothing can be found; "
            "check that it is the right file"
        )
    return qrels
