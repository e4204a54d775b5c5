"""Pairs of a training set in order, however they are accessed."""

from __future__ import annotations

from quarry.mining.mining_texts import ExampleQueries
from quarry.mining.training_pairs import TrainingPairs, TrainingPassages
from quarry.types import Document, Query, TrainExample


def example(number: int, *passages: str, num_positives: int = 1) -> TrainExample:
    documents = tuple(Document(document_id=text, text=text) for text in passages)
    return TrainExample(
        query=Query(query_id=f"q{number}", text=f"query {number}"),
        positives=documents[:num_positives],
        hard_negatives=documents[num_positives:],
    )


EXAMPLES = [example(0, "a", "b"), example(1, "c"), example(2, "d", "e", "f", num_positives=2)]
WANTED = [("q0", "a"), ("q0", "b"), ("q1", "c"), ("q2", "d"), ("q2", "e"), ("q2", "f")]


def test_each_query_meets_its_positives_then_its_negatives() -> None:
    pairs = TrainingPairs(EXAMPLES)
    assert [(query.query_id, document.text) for query, document in pairs] == WANTED
    assert pairs.counts.tolist() == [2, 1, 3]
    assert len(pairs) == 6


def test_pairs_are_found_in_any_order() -> None:
    pairs = TrainingPairs(EXAMPLES)
    for number in (5, 0, 3, 2, 4, 1, -1):
        assert pairs[number][1].text == WANTED[number][1]
    assert [document.text for _, document in pairs[1:5]] == ["b", "c", "d", "e"]


def test_queries_and_passages() -> None:
    assert [query.query_id for query in ExampleQueries(EXAMPLES)] == ["q0", "q1", "q2"]
    assert [query.query_id for query in ExampleQueries(EXAMPLES)[1:]] == ["q1", "q2"]
    passages = TrainingPassages(TrainingPairs(EXAMPLES))
    assert [each.text for each in passages] == [text for _, text in WANTED]
    assert [each.text for each in passages[-2:]] == ["e", "f"]


def test_no_examples_have_no_pairs() -> None:
    assert len(TrainingPairs([])) == 0
