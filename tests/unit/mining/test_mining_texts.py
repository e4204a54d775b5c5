"""Each text once, and no positive of a query among what may be its negatives."""

from __future__ import annotations

import pytest

from helpers.mining import example, passage
from quarry.errors import UserError
from quarry.mining.mining_texts import read_mining_texts
from quarry.types import Document

EXAMPLES = [
    example("one", ["a", "b"], ["c"]),
    example("two", ["c"], ["d ", "a"]),
    example(" one ", ["d"], ["e", "two"]),
]


def texts_of(places: object, texts: object) -> list[str]:
    return [texts.passages[place].text for place in places.tolist()]  # type: ignore[attr-defined]


def test_passages_of_the_data_each_text_once_in_order_of_appearance() -> None:
    texts = read_mining_texts(EXAMPLES)
    assert [document.text for document in texts.passages] == ["a", "b", "c", "d ", "e", "two"]
    assert texts.passages[1:4] == [texts.passages[place] for place in range(1, 4)]
    assert texts.num_searched == len(texts.passages) == 6
    assert [query.text for query in texts.queries] == ["one", "two", " one "]
    assert texts_of(texts.positives_of(0), texts) == ["a", "b"]
    assert texts_of(texts.hard_negatives_of(1), texts) == ["d ", "a"]


def test_positives_of_the_same_query_text_and_the_query_itself_are_excluded() -> None:
    texts = read_mining_texts(EXAMPLES)
    excluded = [sorted(texts_of(texts.excluded_of(row), texts)) for row in range(3)]
    assert excluded == [["a", "b", "d "], ["c", "two"], ["a", "b", "d "]]
    assert texts.most_excluded == 4


def test_a_corpus_is_searched_and_positives_that_it_lacks_follow() -> None:
    corpus = [passage("x"), passage("b"), Document(document_id="blank", text=" "), passage("x")]
    texts = read_mining_texts(EXAMPLES, corpus=corpus)
    assert [document.text for document in texts.passages] == ["x", "b", "a", "c", "d"]
    assert texts.num_searched == 2
    assert texts.corpus_places.tolist() == [0, 1, -1, 0]
    assert texts_of(texts.positives_of(0), texts) == ["a", "b"]


def test_titles_belong_to_the_text() -> None:
    corpus = [passage("a", title="t"), passage("a")]
    texts = read_mining_texts(EXAMPLES, corpus=corpus)
    assert texts.num_searched == 2
    assert texts.positives_of(0).tolist()[0] == 1


def test_the_digest_tells_texts_ids_and_their_places_apart() -> None:
    digests = [
        read_mining_texts(EXAMPLES).digest,
        read_mining_texts(EXAMPLES[::-1]).digest,
        read_mining_texts([example("one", ["a"], ["b", "c"]), *EXAMPLES[1:]]).digest,
        read_mining_texts(EXAMPLES, corpus=[passage("x")]).digest,
    ]
    assert len(set(digests)) == 4
    assert digests[0] == read_mining_texts(EXAMPLES).digest


def test_a_corpus_of_empty_documents_is_refused_with_its_key() -> None:
    blank = [Document(document_id="blank", text="")]
    with pytest.raises(UserError, match=r"task\.corpus: there are no passages.*Fix: "):
        read_mining_texts(EXAMPLES, corpus=blank)
