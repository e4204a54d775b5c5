"""One record of a training file becomes a query with its passages; what is not read is named."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quarry.data.jsonl import record_id, record_text, shown
from quarry.data.records import DOCUMENT_TEXTS
from quarry.data.text_ids import GivenIds, text_id
from quarry.data.train_forms import FORMS, PASSAGE_IDS, TrainForm
from quarry.errors import UserError
from quarry.types import Document

Passage = tuple[Any, float | None]
"""A document, or its id where a corpus has the text, and its score."""

_TEXT_KEYS = (*DOCUMENT_TEXTS, "content")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainLine:
    """What one record says.

    Attributes:
        positives, hard_negatives: in the record's order.
        unread: keys that hold something and are not read; those of passages as
            "positive_passages.url".
    """

    query_id: str
    query: str
    positives: list[Passage]
    hard_negatives: list[Passage]
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layout:
    """Which keys of a record are what; the same for all records with the same keys."""

    query: str
    query_id: str | None
    positive: list[str]
    negative: list[str]
    positive_scores: str | None
    negative_scores: str | None
    unread: list[str]


class LineReader:
    """Reads the records of one form.

    Args:
        form: of the file's first record.
        ignored: keys that are neither read nor refused.
        has_text_cells: whether every value is a string, as in CSV: a list is then written as JSON.

    Attributes:
        query_ids, passage_ids: the ids that were given, with what they stand for.
    """

    def __init__(
        self, form: TrainForm, *, ignored: Sequence[str] = (), has_text_cells: bool = False
    ) -> None:
        self.form = form
        self.query_ids = GivenIds()
        self.passage_ids = GivenIds()
        self._ignored = frozenset(ignored)
        self._has_text_cells = has_text_cells
        self._layouts: dict[tuple[str, ...], _Layout] = {}
        self._passage_ids = [key for key in PASSAGE_IDS if key not in self._ignored]
        self._read_of_passages = {*PASSAGE_IDS, *_TEXT_KEYS, "title", "score", *self._ignored}

    def __call__(self, record: Mapping[str, Any], where: str) -> TrainLine:
        """Return what a record says.

        Raises:
            UserError: it has another form or none, its query is empty, a value is of a wrong type,
                or a key that is not read seems to hold passages.
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
        present = [key for key in keys if key not in self._ignored]
        positive = [key for key in form.positive if key in present]
        negative = form.negatives_of(present)
        if not positive:
            self._refuse_other_form(present, where)
        roles = {
            name: _only(name, getattr(form, name), present, where)
            for name in ("query", "query_id", "positive_scores", "negative_scores")
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
        """A record without any positive is skipped; but one with those of another form is not."""
        for other in FORMS:
            for key in other.positive:
                if key in keys and key not in self.form.known:
                    raise UserError(
                        f"{where}: lacks {self.form.positive[0]!r}, which the first line has, and "
                        f"has {key!r}; all lines must have one form ({self.form.name})"
                    )

    def _is_left_out(self, key: str, value: Any, where: str) -> bool:
        """Whether a key that is not read holds something; refuses what should be read."""
        if value is None or value in ("", [], {}):
            return False
        form = self.form
        remedy = f"Fix: data.columns.ignored=[{key}] leaves it out"
        if key in form.refused:
            raise UserError(
                f"{where}: {key!r} grades the pairs, and every pair would be trained as a true "
                f"one; keep those that are. {remedy}"
            )
        if key in form.known or not isinstance(value, str | list | dict):
            return True
        meant = form.taken_for(key)
        if meant is not None:
            raise UserError(
                f"{where}: {key!r} is not read; {meant!r} is. Fix: rename it, or name it in "
                f"data.columns; data.columns.ignored=[{key}] leaves it out"
            )
        if isinstance(value, list) and any(_is_text(entry) for entry in value):
            raise UserError(
                f"{where}: {key!r} is a list of texts that is not read. Fix: name it in "
                f"data.columns; data.columns.ignored=[{key}] leaves it out"
            )
        return True

    def _query(self, record: Mapping[str, Any], key: str, where: str) -> str:
        value = record[key]
        if _is_conversation(value):
            query = _message_text(value, f"{where} ({key})")
        elif self.form.name == "ms-swift":
            raise UserError(f"{where}: {key!r} must be a list of messages (role, content)")
        else:
            query = record_text(dict(record), key, where)
        if not query.strip():
            raise UserError(f"{where}: the query is empty; give it a text or remove the line")
        return query

    def _query_id(self, record: Mapping[str, Any], layout: _Layout, query: str, where: str) -> str:
        if layout.query_id is None or record[layout.query_id] is None:
            return text_id(query)
        query_id = record_id(dict(record), (layout.query_id,), where)
        self.query_ids.add(query_id, query)
        return query_id

    def _passages(
        self,
        record: Mapping[str, Any],
        keys: Sequence[str],
        scores_key: str | None,
        unread: list[str],
        where: str,
    ) -> list[Passage]:
        found: list[Passage] = []
        for key in keys:
            found += self._values(record[key], key, unread, f"{where} ({key})")
        if scores_key is None or record[scores_key] is None:
            return found
        scores = self._scores(record[scores_key], f"{where} ({scores_key})")
        if len(scores) != len(found):
            raise UserError(
                f"{where}: {scores_key!r} has {len(scores)} scores for {len(found)} passages; "
                "give one for each"
            )
        return [(passage, score) for (passage, _), score in zip(found, scores, strict=True)]

    def _values(self, value: Any, key: str, unread: list[str], where: str) -> list[Passage]:
        """The passages of one key: a text, an object with one, messages, or a list of those."""
        if value is None:
            return []
        if self._has_text_cells:
            value = _list_of_cell(value, where)
        if self.form.has_ids:
            return [(_corpus_id(each, key, where), None) for each in _as_list(value)]
        if _is_conversation(value):
            return [self._value(value, key, unread, where)]
        return [self._value(each, key, unread, where) for each in _as_list(value)]

    def _value(self, value: Any, key: str, unread: list[str], where: str) -> Passage:
        if isinstance(value, str):
            return Document(document_id=text_id(value), text=value), None
        if _is_conversation(value):
            text = _message_text(value, where)
            return Document(document_id=text_id(text), text=text), None
        if isinstance(value, dict):
            unread += [
                f"{key}.{name}"
                for name in value
                if name not in self._read_of_passages and value[name] is not None
            ]
            return self._document(value, where)
        raise UserError(
            f"{where}: {shown(value)} is no passage; it must be a text, an object with a 'text', "
            "or a list of them"
        )

    def _document(self, fields: dict[str, Any], where: str) -> Passage:
        text_key = next((key for key in _TEXT_KEYS if key in fields), _TEXT_KEYS[0])
        text = record_text(fields, text_key, where)
        title = "" if fields.get("title") is None else record_text(fields, "title", where)
        id_key = next((key for key in self._passage_ids if fields.get(key) is not None), None)
        if id_key is None:
            document_id = text_id(f"{title}\n{text}" if title else text)
        else:
            document_id = record_id(fields, (id_key,), where)
            self.passage_ids.add(document_id, title, text)
        score = fields.get("score")
        document = Document(document_id=document_id, title=title, text=text)
        return document, None if score is None else _number(score, f"{where} (score)")

    def _scores(self, value: Any, where: str) -> list[float]:
        if self._has_text_cells and isinstance(value, str) and value.lstrip().startswith("["):
            value = _list_of_json(value, where)
        return [_number(each, where) for each in _as_list(value)]


def _only(role: str, names: Sequence[str], keys: Sequence[str], where: str) -> str | None:
    found = [name for name in names if name in keys]
    if len(found) > 1:
        raise UserError(
            f"{where}: {' and '.join(map(repr, found))} both name the {role.replace('_', ' ')}. "
            f"Fix: data.columns.{role}={found[0]} data.columns.ignored=[{found[1]}]"
        )
    return found[0] if found else None


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _corpus_id(value: Any, key: str, where: str) -> str:
    return record_id({key: value}, (key,), where)


def _is_text(value: Any) -> bool:
    if isinstance(value, dict):
        return any(isinstance(value.get(key), str) for key in _TEXT_KEYS)
    return isinstance(value, list) or (isinstance(value, str) and bool(value.strip()))


def _is_conversation(value: Any) -> bool:
    """Whether a value is a list of messages, as chats are written."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(each, dict) and "role" in each for each in value)
    )


def _message_text(messages: Sequence[Mapping[str, Any]], where: str) -> str:
    if len(messages) != 1 or not isinstance(messages[0].get("content"), str):
        raise UserError(
            f"{where}: {len(messages)} messages, or content that is no text; one message with a "
            "text is what is encoded"
        )
    text: str = messages[0]["content"]
    if any(tag in text for tag in ("<image>", "<video>", "<audio>")):
        raise UserError(f"{where}: holds an image, a video or a sound; texts alone are read")
    return text


def _list_of_cell(value: Any, where: str) -> Any:
    """A list that is written into one cell; any other cell is a text as it stands."""
    if isinstance(value, str) and value[:2] in ('["', "['") and value.endswith("]"):
        return _list_of_json(value, where)
    return [] if value == "" else value


def _list_of_json(cell: str, where: str) -> list[Any]:
    try:
        found = json.loads(cell)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{where}: {shown(cell)} looks like a list and is no JSON; write it as JSON, or one "
            "passage a column: negative_1, negative_2, ..."
        ) from error
    return _as_list(found)


def _number(value: Any, where: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{where}: {shown(value)} is no score; it must be a finite number")
    return number
