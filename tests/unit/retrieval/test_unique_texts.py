"""Equal texts are one text, whatever item they stand in; the order is that of the items."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from quarry.data.prompts import joined_text
from quarry.retrieval.unique_texts import NUM_HASH_BYTES, ChosenItems, unique_texts
from quarry.types import Document, Query


def queries(texts: Sequence[str]) -> list[Query]:
    return [Query(query_id=str(i), text=text) for i, text in enumerate(texts)]


def test_in_the_order_of_their_first_item() -> None:
    texts = ["b", "a", "b", "", "a", "c", "", "b"]
    found = unique_texts(queries(texts), joined_text)
    assert found.first.tolist() == [0, 1, 3, 5]
    assert found.text_of.tolist() == [0, 1, 0, 2, 1, 3, 2, 0]
    assert len(found) == len(set(found.hashes.tolist())) == 4


def test_what_is_compared_is_the_text_that_is_encoded() -> None:
    documents = [
        Document(document_id="1", title="a", text="b"),
        Document(document_id="2", text="a b"),
        Document(document_id="3", text="a", title="b"),
    ]
    found = unique_texts([*documents, Query(query_id="1", text="a b")], joined_text)
    assert found.text_of.tolist() == [0, 0, 1, 0]


def test_hashes_depend_on_the_text_alone() -> None:
    one = unique_texts(queries(["x", "y", "z"]), joined_text)
    other = unique_texts(queries(["z", "q", "x"]), joined_text)
    assert one.hashes[0] == other.hashes[2]
    assert one.hashes[2] == other.hashes[0]
    assert one.hashes.tobytes() == b"".join(
        unique_texts(queries([text]), joined_text).hashes.tobytes() for text in "xyz"
    )


def test_many_hashes_of_which_some_end_in_zero() -> None:
    """numpy drops zeros at the end of a string that it hands out; they must not get lost."""
    found = unique_texts(queries([str(i) for i in range(3000)] * 2), joined_text)
    data = found.hashes.tobytes()
    assert any(data[i + NUM_HASH_BYTES - 1] == 0 for i in range(0, len(data), NUM_HASH_BYTES))
    assert len(data) == 3000 * NUM_HASH_BYTES
    assert found.text_of.tolist() == [*range(3000), *range(3000)]


def test_half_a_character_and_nothing_at_all() -> None:
    assert len(unique_texts(queries(["\ud800", "\ud801"]), joined_text)) == 2
    assert len(unique_texts([], joined_text)) == 0


@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4], [1, 2, 4], [0, 9], [], [3], [0, 2, 4, 6, 8]])
def test_chosen_items_are_those(rows: list[int]) -> None:
    items = queries([str(i) for i in range(10)])
    chosen = ChosenItems(items, np.array(rows, dtype=np.int64))
    expected = [items[row] for row in rows]
    assert list(chosen) == expected
    for start in range(len(rows) + 1):
        for stop in range(start, len(rows) + 1):
            assert list(chosen[start:stop]) == expected[start:stop]
