"""The forms that a line of a training file can have: Tevatron's two, and pairs and triples."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quarry.data.jsonl import read_jsonl, record_id, record_text
from quarry.data.records import record_document
from quarry.errors import UserError
from quarry.types import Document


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainLine:
    """What one line says. Passages are ids, or documents, as the form has them."""

    query_id: str
    query: str
    positives: list[Any]
    hard_negatives: list[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainForm:
    """How a line is read; `marker` is the key that tells this form from the others."""

    marker: str
    parse: Callable[[dict[str, Any], str], TrainLine]
    needs_corpus: bool = False


def _parse_inline(record: dict[str, Any], where: str) -> TrainLine:
    def documents(key: str) -> list[Document]:
        found = _list(record, key, where, dict, "objects")
        return [record_document(fields, ("docid",), f"{where} ({key})") for fields in found]

    return TrainLine(
        query_id=record_id(record, ("query_id",), where),
        query=record_text(record, "query", where),
        positives=documents("positive_passages"),
        hard_negatives=documents("negative_passages"),
    )


def _parse_ids(record: dict[str, Any], where: str) -> TrainLine:
    def ids(key: str) -> list[str]:
        found = _list(record, key, where, (str, int), "ids")
        return [record_id({key: value}, (key,), where) for value in found]

    return TrainLine(
        query_id=record_id(record, ("query_id",), where),
        query=record_text(record, "query_text" if "query_text" in record else "query", where),
        positives=ids("positive_document_ids"),
        hard_negatives=ids("negative_document_ids"),
    )


def _parse_texts(record: dict[str, Any], where: str) -> TrainLine:
    def documents(key: str) -> list[Document]:
        is_single = isinstance(record.get(key), str)
        texts = [record[key]] if is_single else _list(record, key, where, str, "strings")
        return [Document(document_id=_text_id(text), text=text) for text in texts]

    query = record_text(record, "query", where)
    return TrainLine(
        query_id=_text_id(query),
        query=query,
        positives=documents("positive"),
        hard_negatives=[*documents("negative"), *documents("negatives")],
    )


FORMS = (
    TrainForm(marker="positive_passages", parse=_parse_inline),
    TrainForm(marker="positive_document_ids", parse=_parse_ids, needs_corpus=True),
    TrainForm(marker="positive", parse=_parse_texts),
)


def _list(
    record: dict[str, Any], key: str, where: str, kind: type | tuple[type, ...], wanted: str
) -> list[Any]:
    """The list under `key`, empty if there is none."""
    value = record.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(entry, kind) for entry in value):
        raise UserError(f"{where}: {key!r} must be a list of {wanted}")
    return value


def _text_id(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def form_of_file(source: Path) -> TrainForm:
    """The form of a file, told by the keys of its first line."""
    for line, record in read_jsonl(source):
        for form in FORMS:
            if form.marker in record:
                return form
        markers = ", ".join(form.marker for form in FORMS)
        raise UserError(
            f"{source}:{line}: no training example; beside the query it needs one of: {markers}; "
            f"its keys are: {', '.join(record)}"
        )
    raise UserError(f"{source}: holds no records; check that it is the right file")
