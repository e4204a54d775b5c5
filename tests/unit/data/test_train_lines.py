"""Any record is read, or refused by name: never another exception, and no text is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quarry.data.train_forms import FORMS, TrainColumns
from quarry.data.train_keys import form_of_record
from quarry.data.train_lines import LineReader, TrainLine
from quarry.errors import UserError
from quarry.types import Document

KEYS = sorted({key for form in FORMS for key in (*form.texts, *form.known)})
MORE = ["label", "query_id", "negative_1", "negative_02", "neg_", "negs", "id", "title", "x", ""]
WORDS = st.sampled_from(["a", "b", " ", "", '["a", "b"]', "['a']", "[", "7", "0.5", "<image>", "é"])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | WORDS
OBJECTS = st.dictionaries(
    st.sampled_from(["text", "title", "docid", "score", "role", "content", "url"]), LEAVES
)
VALUES = st.recursive(
    LEAVES | OBJECTS, lambda inner: st.lists(inner, max_size=3) | OBJECTS, max_leaves=6
)
RECORDS = st.dictionaries(st.sampled_from(KEYS + MORE), VALUES, max_size=6)
TEXTS = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=9)


@settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(
    first=RECORDS,
    second=RECORDS,
    ignored=st.lists(st.sampled_from(KEYS + MORE), max_size=2),
    has_text_cells=st.booleans(),
)
def test_any_record_is_a_line_or_a_message(
    first: dict[str, Any], second: dict[str, Any], ignored: list[str], has_text_cells: bool
) -> None:
    columns = TrainColumns(ignored=ignored)
    form = ended(lambda: form_of_record(first, "file:1", columns), "file:1")
    if form is None:
        return
    read = LineReader(form, ignored=ignored, has_text_cells=has_text_cells)
    for number, record in enumerate((first, second), start=1):
        where = f"file:{number}"
        line = ended(partial(read, record, where), where)
        if line is not None:
            check(line, record, form.has_ids)


def ended(call: Callable[[], Any], where: str) -> Any:
    """What a call returns, or None where it ends in a message that names the place."""
    try:
        return call()
    except UserError as error:
        message = str(error)
    assert where in message
    assert len(message) < 1000
    return None


def check(line: TrainLine, record: dict[str, Any], has_ids: bool) -> None:
    assert line.query.strip()
    assert line.query_id
    for passage, score in (*line.positives, *line.hard_negatives):
        assert score is None or abs(score) < float("inf")
        assert isinstance(passage, str if has_ids else Document)
    for key in line.unread:
        assert key.partition(".")[0] in record


@settings(max_examples=40, derandomize=True, deadline=None)
@given(
    query=TEXTS.filter(str.strip),
    positives=st.lists(TEXTS, min_size=1, max_size=3),
    negatives=st.lists(TEXTS, max_size=3),
)
def test_every_form_says_the_same(query: str, positives: list[str], negatives: list[str]) -> None:
    def message(text: str) -> list[dict]:
        return [{"role": "user", "content": text}]

    def objects(texts: list[str]) -> list[dict]:
        return [{"text": text} for text in texts]

    records = [
        {"query": query, "pos": positives, "neg": negatives},
        {"anchor": query, "positive": positives}
        | {f"negative_{i}": text for i, text in enumerate(negatives, start=1)},
        {
            "query": query,
            "positive_passages": objects(positives),
            "negative_passages": objects(negatives),
        },
        {
            "question": query,
            "positive_ctxs": objects(positives),
            "hard_negative_ctxs": objects(negatives),
        },
        {
            "messages": message(query),
            "positive_messages": [message(text) for text in positives],
            "negative_messages": [message(text) for text in negatives],
        },
        {"query": query, "response": positives, "rejected_response": negatives},
        {"query": query, "document": positives, "negatives": negatives},
    ]
    lines = []
    for record in records:
        read = LineReader(form_of_record(record, "file:1", TrainColumns()))
        lines.append(read(record, "file:1"))
    cells = {"query": query, "positive": json.dumps(positives), "negative": json.dumps(negatives)}
    read = LineReader(form_of_record(cells, "file:1", TrainColumns()), has_text_cells=True)
    lines.append(read(cells | {"negative": cells["negative"] if negatives else ""}, "file:1"))
    assert all(line == lines[0] for line in lines)
    assert [passage.text for passage, _ in lines[0].positives] == positives
    assert [passage.text for passage, _ in lines[0].hard_negatives] == negatives
