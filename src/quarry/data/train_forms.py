"""What the keys of a training record are called: the forms of other tools, and a user's own map."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from quarry.errors import UserError

QUERY_IDS = ("query_id", "qid", "query-id")
PASSAGE_IDS = ("docid", "_id", "id", "doc_id", "document_id", "passage_id", "psg_id")
"""Where an id may stand. Without one, the id is made from the text."""

_LABELS = ("label", "labels", "score", "scores", "similarity", "similarity_score")
_NUMBERED = re.compile(r"(?:hard_)?neg(?:ative)?_?(\d+)")
_LOOKS_NEGATIVE = re.compile(r"(^|_)(neg|negs|negatives?)(_|\d|$)")
_LOOKS_POSITIVE = re.compile(r"(^|_)(pos|positives?)(_|\d|$)")

_ANSWERS = {"answers": "is for readers, not for retrievers"}


@dataclass(frozen=True, kw_only=True)
class TrainColumns:
    """A user's own names of columns; what is None goes by the form of the file.

    Attributes:
        query, query_id: a column.
        positive, negative: a column, or several whose passages are joined in this order.
        positive_scores, negative_scores: a column with a number for each passage.
        ignored: columns, of records and of passages, that are neither read nor refused.
    """

    query: str | None = None
    query_id: str | None = None
    positive: str | Sequence[str] | None = None
    negative: str | Sequence[str] | None = None
    positive_scores: str | None = None
    negative_scores: str | None = None
    ignored: Sequence[str] = ()

    def chosen(self) -> dict[str, tuple[str, ...]]:
        """Return role -> the columns that were named for it, without `ignored`."""
        found: dict[str, tuple[str, ...]] = {}
        for role in ROLES:
            value = getattr(self, role)
            if value is not None:
                found[role] = (value,) if isinstance(value, str) else tuple(value)
        return found


@dataclass(frozen=True, kw_only=True)
class TrainForm:
    """Where the parts of an example stand in a record.

    Attributes:
        name: of the tool or the data that have this form, for messages.
        query, query_id, positive_scores, negative_scores: keys that mean the same; a record has one
            of them.
        positive, negative: keys whose passages are joined. A record with one of `positive` has
            this form.
        has_numbered: whether `negative_1`, `negative_2`, ... are negatives, too.
        has_ids: whether passages are ids of a corpus.
        known: keys that the tool writes and that are not read -> why.
        refused: keys that change what a record means -> why it cannot be read.
        named: the keys that a user named: these must be there.
    """

    name: str
    query: tuple[str, ...]
    positive: tuple[str, ...]
    negative: tuple[str, ...] = ()
    query_id: tuple[str, ...] = QUERY_IDS
    positive_scores: tuple[str, ...] = ()
    negative_scores: tuple[str, ...] = ()
    has_numbered: bool = False
    has_ids: bool = False
    known: Mapping[str, str] = field(default_factory=dict)
    refused: Collection[str] = ()
    named: tuple[str, ...] = ()

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The keys that texts or their scores stand under."""
        return (
            *(*self.query, *self.positive, *self.negative),
            *(*self.positive_scores, *self.negative_scores),
        )

    def negatives_of(self, keys: Collection[str]) -> list[str]:
        """Return those of a record's keys that hold its negatives, numbered ones in order."""
        found = [key for key in self.negative if key in keys]
        if self.has_numbered:
            numbered = [(int(m[1]), key) for key in keys if (m := _NUMBERED.fullmatch(key))]
            found += [key for _, key in sorted(numbered)]
        return found

    def taken_for(self, key: str) -> str | None:
        """Return which key of this form a key that is not read was meant to be, if any.

        One edit away, a name of another form, or a name with "negative" or "positive" in it.
        """
        for read in self.texts:
            if _within_one_edit(key, read):
                return read
        is_negative = key in _NAMES_OF_NEGATIVES or _LOOKS_NEGATIVE.search(key)
        if is_negative or key in _NAMES_OF_POSITIVES or _LOOKS_POSITIVE.search(key):
            return (self.negative if is_negative and self.negative else self.positive)[0]
        return None


ROLES = ("query", "query_id", "positive", "negative", "positive_scores", "negative_scores")
"""The parts of an example that `TrainColumns` names."""

_TEXTS = TrainForm(
    name="pairs, triples, n-tuples",
    query=("query", "anchor", "question", "query_text"),
    positive=("positive", "positives", "pos"),
    negative=("negative", "negatives", "neg", "hard_negatives", "hard_negative"),
    positive_scores=("pos_scores", "positive_scores"),
    negative_scores=("neg_scores", "negative_scores"),
    has_numbered=True,
    known={
        "prompt": "prompt.query says what stands before a query",
        "type": "every line is trained alike",
        "pos_id": "ids are made from the texts",
        "neg_id": "ids are made from the texts",
    },
    refused=_LABELS,
)

FORMS = (
    TrainForm(
        name="Tevatron",
        query=("query", "query_text"),
        positive=("positive_passages",),
        negative=("negative_passages",),
        known=_ANSWERS,
    ),
    TrainForm(
        name="Tevatron with ids",
        query=("query_text", "query"),
        positive=("positive_document_ids",),
        negative=("negative_document_ids",),
        has_ids=True,
        known=_ANSWERS,
    ),
    TrainForm(
        name="DPR",
        query=("question",),
        positive=("positive_ctxs",),
        negative=("hard_negative_ctxs",),
        known={
            **_ANSWERS,
            "negative_ctxs": "DPR trains on hard_negative_ctxs; data.columns.negative names both",
        },
    ),
    TrainForm(
        name="ms-swift",
        query=("messages",),
        positive=("positive_messages",),
        negative=("negative_messages",),
        refused=_LABELS,
    ),
    TrainForm(
        name="ms-swift 3",
        query=("query",),
        positive=("response",),
        negative=("rejected_response",),
        refused=_LABELS,
    ),
    _TEXTS,
    TrainForm(
        name="nomic",
        query=("query",),
        positive=("document",),
        negative=("negatives", "negative"),
        positive_scores=("document_score",),
        negative_scores=("negative_scores",),
        refused=_LABELS,
    ),
    TrainForm(
        name="questions and answers",
        query=("question", "query"),
        positive=("answer",),
        negative=_TEXTS.negative,
        has_numbered=True,
        refused=_LABELS,
    ),
    TrainForm(
        name="pairs of sentences", query=("sentence1",), positive=("sentence2",), refused=_LABELS
    ),
)
"""In the order in which they are looked for: of two whose keys a record has, the first counts."""

REASONS = {key: reason for form in FORMS for key, reason in form.known.items()}
"""Keys that tools write and that are not read -> why."""

_NAMES_OF_POSITIVES = frozenset(key for form in FORMS for key in form.positive)
_NAMES_OF_NEGATIVES = frozenset(key for form in FORMS for key in form.negative)


def form_of(record: Mapping[str, Any], where: str, columns: TrainColumns) -> TrainForm:
    """Return the form of a file, told by the keys of its first record and what the user named.

    Raises:
        UserError: no form has such keys, or a named column is not there.
    """
    chosen = columns.chosen()
    missing = [key for keys in chosen.values() for key in keys if key not in record]
    if missing:
        raise UserError(
            f"{where}: has no {missing[0]!r}, which data.columns names; its keys are: "
            f"{', '.join(record)}"
        )
    found = next((form for form in FORMS if any(key in record for key in form.positive)), None)
    if "positive" in chosen and (found is None or not set(found.positive) & {*chosen["positive"]}):
        found = _TEXTS
    if found is None:
        names = ", ".join(sorted(_NAMES_OF_POSITIVES))
        raise UserError(
            f"{where}: no training example: none of its keys ({', '.join(record)}) is known to "
            f"hold a positive ({names}). Fix: data.columns.positive=KEY (and data.columns.query, "
            "data.columns.negative)"
        )
    if not chosen:
        return found
    own: dict[str, Any] = {**vars(found), **chosen}
    own.pop("texts", None)  # cached
    own["has_numbered"] = found.has_numbered and "negative" not in chosen
    own["name"] = "data.columns"
    own["named"] = tuple(key for keys in chosen.values() for key in keys)
    own["known"] = {k: v for k, v in found.known.items() if k not in own["named"]}
    own["refused"] = [key for key in found.refused if key not in own["named"]]
    return TrainForm(**own)


def _within_one_edit(one: str, other: str) -> bool:
    """Whether a letter more, less or other, or two swapped, make one of the other."""
    if one == other or abs(len(one) - len(other)) > 1:
        return False
    if len(one) > len(other):
        one, other = other, one
    start = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))
    if len(one) < len(other):
        return one[start:] == other[start + 1 :]
    swapped = one[start + 1 : start + 2] + one[start : start + 1] + one[start + 2 :]
    return one[start + 1 :] == other[start + 1 :] or swapped == other[start:]
