"""Define the keys of training records: the forms of other tools, and a user's own mapping."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

QUERY_IDS = ("query_id", "qid", "query-id")
PASSAGE_IDS = ("docid", "_id", "id", "doc_id", "document_id", "passage_id", "psg_id")
"""Keys of an id. Without one, the id is derived from the text."""

_NUMBERED = re.compile(r"(?:hard_)?neg(?:ative)?_?(\d+)")

_ANSWERS = {"answers": "is for readers, not for retrievers"}


@dataclass(frozen=True, kw_only=True)
class TrainColumns:
    """Column names that a user gives; the form of the file decides about those that are None.

    Attributes:
        query, query_id: a column.
        positive, negative: a column, or several whose passages are joined in this order.
        positive_scores, negative_scores: a column with a number for each passage.
        weight: a column with a number above 0, how much the query counts in the loss.
        ignored: columns, of records and of passages, that are neither read nor refused.
    """

    query: str | None = None
    query_id: str | None = None
    positive: str | Sequence[str] | None = None
    negative: str | Sequence[str] | None = None
    positive_scores: str | None = None
    negative_scores: str | None = None
    weight: str | None = None
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
    """Keys of the parts of an example in a record.

    Attributes:
        name: tool or data with this form, for messages.
        query, query_id, positive_scores, negative_scores: synonyms; a record has one of them.
        positive, negative: keys whose passages are joined. A record with one of `positive` has this
            form.
        weight: key of the query's weight; no form has one by itself.
        has_numbered: whether `negative_1`, `negative_2`, ... are negatives, too.
        has_ids: whether passages are ids of a corpus.
        has_scores: whether the `score` of a passage is a teacher's.
        known: keys that the tool writes and that are not read -> reason.
    """

    name: str
    query: tuple[str, ...]
    positive: tuple[str, ...]
    negative: tuple[str, ...] = ()
    query_id: tuple[str, ...] = QUERY_IDS
    positive_scores: tuple[str, ...] = ()
    negative_scores: tuple[str, ...] = ()
    weight: tuple[str, ...] = ()
    has_numbered: bool = False
    has_ids: bool = False
    has_scores: bool = True
    known: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """Return the keys of texts and of their scores."""
        return (
            *(*self.query, *self.positive, *self.negative),
            *(*self.positive_scores, *self.negative_scores),
        )

    def negatives_of(self, keys: Collection[str]) -> list[str]:
        """Return those of a record's keys that hold negatives, numbered ones in order."""
        found = [key for key in self.negative if key in keys]
        if self.has_numbered:
            numbered = [(int(m[1]), key) for key in keys if (m := _NUMBERED.fullmatch(key))]
            found += [key for _, key in sorted(numbered)]
        return found


ROLES = (
    "query", "query_id", "positive", "negative", "positive_scores", "negative_scores", "weight",
)  # fmt: skip
"""The parts of an example that `TrainColumns` names."""

TEXTS = TrainForm(
    name="pairs, triples, n-tuples",
    query=("query", "anchor", "question", "query_text"),
    positive=("positive", "positives", "pos"),
    negative=("negative", "negatives", "neg", "hard_negatives", "hard_negative"),
    positive_scores=("pos_scores", "positive_scores"),
    negative_scores=("neg_scores", "negative_scores"),
    has_numbered=True,
    known={
        "prompt": "prompt.query says what stands before every query",
        "type": "every line is trained alike",
        "pos_id": "ids are made from the texts",
        "neg_id": "ids are made from the texts",
    },
)

FORMS = (
    TrainForm(
        name="Tevatron",
        query=("query", "query_text"),
        positive=("positive_passages",),
        negative=("negative_passages",),
        known={
            **_ANSWERS,
            "mined": "how task=mine found its negatives; the scores in it are no teacher's",
        },
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
        has_scores=False,  # BM25's, and 1000 for gold
        known={
            **_ANSWERS,
            "negative_ctxs": "as in DPR; data.columns.negative=[hard_negative_ctxs,negative_ctxs] "
            "reads them",
        },
    ),
    TrainForm(
        name="ms-swift",
        query=("messages",),
        positive=("positive_messages",),
        negative=("negative_messages",),
    ),
    TrainForm(
        name="ms-swift 3",
        query=("query",),
        positive=("response",),
        negative=("rejected_response",),
    ),
    TEXTS,
    TrainForm(
        name="nomic",
        query=("query",),
        positive=("document",),
        negative=("negatives", "negative"),
        positive_scores=("document_score",),
        negative_scores=("negative_scores",),
        known={"metadata": "describes the line"},
    ),
    TrainForm(
        name="questions and answers",
        query=("question", "query"),
        positive=("answer",),
        negative=TEXTS.negative,
        has_numbered=True,
    ),
    TrainForm(name="pairs of sentences", query=("sentence1",), positive=("sentence2",)),
)
"""Forms in order of precedence: if a record has the keys of two, the first is used."""

REASONS = {key: reason for form in FORMS for key, reason in form.known.items()}
"""Keys that tools write and that are not read -> reason."""

NAMES_OF_POSITIVES = frozenset(key for form in FORMS for key in form.positive)
NAMES_OF_NEGATIVES = frozenset(key for form in FORMS for key in form.negative)
