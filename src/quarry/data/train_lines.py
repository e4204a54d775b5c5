"""Parse a record of a training file into a query with its passages, and list unread keys."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quarry.data.jsonl import record_id, record_text, shown
from quarry.data.text_ids import GivenIds, text_id
from quarry.data.train_forms import FORMS, PASSAGE_IDS, TrainForm
from quarry.data.train_keys import objection
from quarry.data.train_values import (
    TEXT_KEYS,
    finite_number,
    holds_texts,
    is_conversation,
    is_nothing,
    list_of_cell,
    list_of_numbers,
    message_text,
)
from quarry.errors import UserError
from quarry.types import Document

RULES_VERSION = 1
"""Version of the parsing rules; raise it whenever they change, so that tables are rebuilt."""

Passage = tuple[Any, float | None]
"""A document (or its id, if a corpus has the text) and its score."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainLine:
    """A parsed record of a training file.

    Attributes:
        positives, hard_negatives: in the record's order.
        weight: how much the query counts; None: no column is named for it.
        unread: keys that have a value and are not read; keys of passages as
            "positive_passages.url".
    """

    query_id: str
    query: str
    positives: list[Passage]
    hard_negatives: list[Passage]
    weight: float | None = None
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layout:
    """Roles of a record's keys; the same for all records with the same keys."""

    query: str
    query_id: str | None
    positive: list[str]
    negative: list[str]
    positive_scores: str | None
    negative_scores: str | None
    weight: str | None
    unread: list[str]


class LineReader:
    """Parser of the records of one form.

    Args:
        form: form of the file.
        ignored: keys that are neither read nor refused.
        has_text_cells: whether every value is a string, as in CSV; lists are then written as JSON.

    Attributes:
        query_ids, passage_ids: the given ids with the texts that they stand for.
        not_seen: those of `ignored` that no record had so far.
    """

    def __init__(
        self, form: TrainForm, *, ignored: Sequence[str] = (), has_text_cells: bool = False
    ) -> None:
        self.form = form
        self.query_ids = GivenIds()
        self.passage_ids = GivenIds()
        self.not_seen = set(ignored)
        self._ignored = frozenset(ignored)
        self._has_text_cells = has_text_cells
        self._layouts: dict[tuple[str, ...], _Layout] = {}
        own = (*TEXT_KEYS, "title", *(["score"] if form.has_scores else []))
        self._of_passages = [key for key in (*PASSAGE_IDS, *own) if key not in self._ignored]

    def __call__(self, record: Mapping[str, Any], where: str) -> TrainLine:
        """Parse a record.

        Raises:
            UserError: it has another form or none, its query is empty, a value has a wrong type, or
            an unread key seems to hold passages.
        """
        layout = self._layout(record, where)
        unread = [key for key in layout.unread if self._is_left_out(key, record[key], where)]
        query = self._query(record, layout.query, where)
        positives = self._passages(record, layout.positive, layout.positive_scores, unread, where)
        negatives = self._passages(record, layout.negative, layout.negative_scores, unread, where)
        return TrainLine(
            query_id=self._query_id(record, layout, query, where),
            query=query,
            positives=positives,
            hard_negatives=negatives,
            weight=None if layout.weight is None else _weight(record[layout.weight], where),
            unread=tuple(dict.fromkeys(unread)),
        )

    def _layout(self, record: Mapping[str, Any], where: str) -> _Layout:
        keys = tuple(record)
        layout = self._layouts.get(keys)
        if layout is None:
            layout = self._layouts[keys] = self._new_layout(keys, where)
        return layout

    def _new_layout(self, keys: Sequence[str], where: str) -> _Layout:
        form = self.form
        self.not_seen.difference_update(keys)
        present = [key for key in keys if key not in self._ignored]
        positive = [key for key in form.positive if key in present]
        negative = form.negatives_of(present)
        if not positive:
            self._refuse_other_form(present, where)
        roles = {
            name: _only(name, getattr(form, name), present, where)
            for name in ("query", "query_id", "positive_scores", "negative_scores", "weight")
        }
        query = roles.pop("query")
        if query is None:
            raise UserError(
                f"{where}: has no {' or '.join(map(repr, form.query))}; its keys are: "
                f"{', '.join(keys)}. Fix: data.columns.query=KEY"
            )
        read = {query, *roles.values(), *positive, *negative}
        unread = [key for key in present if key not in read]
        return _Layout(query=query, positive=positive, negative=negative, unread=unread, **roles)

    def _refuse_other_form(self, keys: Sequence[str], where: str) -> None:
        """Raise if a record without positives has those of another form; else it is skipped."""
        for other in FORMS:
            for key in other.positive:
                if key in keys and key not in self.form.known:
                    raise UserError(
                        f"{where}: lacks {self.form.positive[0]!r}, which records before have, and "
                        f"has {key!r}; all records must have one form ({self.form.name})"
                    )

    def _is_left_out(self, key: str, value: Any, where: str) -> bool:
        """Return whether an unread key has a value; raise if it should be read."""
        if is_nothing(value):
            return False
        if key in self.form.known:
            return True
        reason = objection(self.form, key, value)
        if reason is not None:
            raise UserError(
                f"{where}: {key!r} {reason}; data.columns.ignored=[{key}] leaves it out"
            )
        return True

    def _query(self, record: Mapping[str, Any], key: str, where: str) -> str:
        value = record[key]
        if is_conversation(value):
            query = message_text(value, f"{where} ({key})")
        elif self.form.name == "ms-swift":
            raise UserError(f"{where}: {key!r} must be a list of messages (role, content)")
        elif isinstance(value, list):
            raise UserError(
                f"{where}: {key!r} is a list; a record has one query. Fix: write a record for "
                "each (pandas: to_json(FILE, orient='records', lines=True))"
            )
        else:
            query = record_text(dict(record), key, where)
        if not query.strip():
            raise UserError(f"{where}: the query is empty; give it a text or remove the line")
        return query

    def _query_id(self, record: Mapping[str, Any], layout: _Layout, query: str, where: str) -> str:
        if layout.query_id is None or is_nothing(record[layout.query_id]):
            return text_id(query)
        query_id = record_id(dict(record), (layout.query_id,), where)
        self.query_ids.add(query_id, query.strip())
        return query_id

    def _passages(
        self,
        record: Mapping[str, Any],
        keys: Sequence[str],
        scores_key: str | None,
        unread: list[str],
        where: str,
    ) -> list[Passage]:
        found: list[Passage | None] = []
        for key in keys:
            found += self._values(record[key], key, unread, f"{where} ({key})")
        present = [each for each in found if each is not None]
        if scores_key is None or is_nothing(record[scores_key]):
            return present
        place = f"{where} ({scores_key})"
        scores = [finite_number(each, place) for each in list_of_numbers(record[scores_key])]
        if len(scores) not in (len(present), len(found)):
            raise UserError(
                f"{where}: {scores_key!r} has {len(scores)} scores for {len(present)} passages; "
                "give one for each"
            )
        scored = present if len(scores) == len(present) else found
        return [
            (each[0], None if math.isnan(score) else score)
            for each, score in zip(scored, scores, strict=True)
            if each is not None
        ]

    def _values(self, value: Any, key: str, unread: list[str], where: str) -> list[Passage | None]:
        """Return the passages of a key: a text, an object, messages, or a list of those."""
        if self._has_text_cells and isinstance(value, str):
            try:
                value = list_of_cell(value) or None
            except ValueError as error:
                raise UserError(
                    f"{where}: {shown(value)} is {error}; write it as JSON, or one passage a "
                    "column: negative_1, negative_2, ..."
                ) from error
        entries = value if isinstance(value, list) and not is_conversation(value) else [value]
        read = self._corpus_id if self.form.has_ids else self._value
        return [None if each is None else read(each, key, unread, where) for each in entries]

    def _corpus_id(self, value: Any, key: str, unread: list[str], where: str) -> Passage:
        return record_id({key: value}, (key,), where), None

    def _value(self, value: Any, key: str, unread: list[str], where: str) -> Passage:
        if is_conversation(value):
            value = message_text(value, where)
        if isinstance(value, str):
            return Document(document_id=text_id(value), text=value), None
        if not isinstance(value, dict):
            raise UserError(
                f"{where}: {shown(value)} is no passage; it must be a text, an object with a "
                "'text', or a list of them"
            )
        self.not_seen.difference_update(value)
        for name, content in value.items():
            if name in self._of_passages or name in self._ignored or is_nothing(content):
                continue
            if name != "title_score" and holds_texts(content):
                raise UserError(
                    f"{where}: {name!r} is a list of texts that is not read; "
                    f"data.columns.ignored=[{name}] leaves it out"
                )
            unread.append(f"{key}.{name}")
        return self._document(value, where)

    def _document(self, fields: dict[str, Any], where: str) -> Passage:
        read = {key: fields[key] for key in self._of_passages if key in fields}
        text_key = next((key for key in TEXT_KEYS if key in read), TEXT_KEYS[0])
        text = record_text(read, text_key, where)
        title = "" if read.get("title") is None else record_text(read, "title", where)
        id_key = next((key for key in PASSAGE_IDS if not is_nothing(read.get(key))), None)
        if id_key is None:
            document_id = text_id(f"{title}\n{text}" if title else text)
        else:
            document_id = record_id(read, (id_key,), where)
            self.passage_ids.add(document_id, title.strip(), text.strip())
        document = Document(document_id=document_id, title=title, text=text)
        if is_nothing(read.get("score")):
            return document, None
        return document, finite_number(read["score"], f"{where} (score)")


def _weight(value: Any, where: str) -> float:
    weight = finite_number(value, f"{where} (weight)")
    if not weight > 0:
        raise UserError(
            f"{where}: {shown(value)} is no weight; each line needs a number above 0 there. "
            "Fix: data.columns.weight=null, or correct the line"
        )
    return weight


def _only(role: str, names: Sequence[str], keys: Sequence[str], where: str) -> str | None:
    found = [name for name in names if name in keys]
    if len(found) > 1:
        raise UserError(
            f"{where}: {' and '.join(map(repr, found))} both name the {role.replace('_', ' ')}. "
            f"Fix: data.columns.{role}={found[0]} data.columns.ignored=[{found[1]}]"
        )
    return found[0] if found else None
