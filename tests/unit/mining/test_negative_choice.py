"""Which candidates become negatives: ranks, exclusions, filters, and draws that repeat."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from quarry.errors import UserError
from quarry.mining.negative_choice import NegativeChoice, Ranked
from quarry.mining.negative_filter import NegativeFilter


def choice(**settings: Any) -> NegativeChoice:
    return NegativeChoice(
        **({"top_k": 10, "num_negatives": 3, "filter": NegativeFilter()} | settings)
    )


def ranked(number: int = 20, *, positive: float = 0.95) -> Ranked:
    """Candidates 100, 101, ... with scores 1, 0.95, 0.9, ..."""
    return Ranked(
        places=np.arange(100, 100 + number),
        scores=1 - np.arange(number) / 20,
        positive_scores=np.array([positive]),
    )


def places(chosen: NegativeChoice, **more: Any) -> list[int]:
    arguments = {"excluded": np.array([], dtype=int), "query": "q"} | more
    return chosen.choose(ranked(), **arguments).places.tolist()


def test_the_best_that_are_no_positives_with_ranks_among_these() -> None:
    found = choice().choose(ranked(), excluded=np.array([100, 102, 7]), query="q")
    assert found.places.tolist() == [101, 103, 104]
    assert found.ranks.tolist() == [1, 2, 3]
    assert found.scores.tolist() == pytest.approx([0.95, 0.85, 0.8])
    assert found.num_positives_retrieved == 2


def test_a_rank_range_counts_from_1_without_positives_and_within_top_k() -> None:
    assert places(choice(rank_range=(2, 4))) == [101, 102, 103]
    assert places(choice(rank_range=(2, 4)), excluded=np.array([101])) == [102, 103, 104]
    assert places(choice(rank_range=(8, 10), num_negatives=3)) == [107, 108, 109]


def test_choice_equals_plain_python() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        number = int(random.integers(0, 30))
        scores = np.sort(random.normal(size=number))[::-1]
        given = Ranked(
            places=random.permutation(number), scores=scores, positive_scores=random.normal(size=2)
        )
        excluded = random.integers(0, 30, size=3)
        rules = choice(rank_range=(3, 9), filter=NegativeFilter(relative_margin=0.1))
        positive = min(given.positive_scores)
        bound = positive - 0.1 * abs(positive)
        pairs = [
            (place, score)
            for place, score in zip(given.places.tolist(), scores.tolist(), strict=True)
            if place not in excluded
        ][:10]
        expected = [place for place, score in pairs[2:9] if score < bound][:3]
        assert rules.choose(given, excluded=excluded, query="q").places.tolist() == expected


def test_random_draws_depend_on_seed_and_query_alone_and_stay_in_order() -> None:
    one = choice(sampling="random", seed=1)
    first = places(one, query="what")
    assert first == places(choice(sampling="random", seed=1), query="what")
    assert first == sorted(first)
    others = [places(one, query=f"other {i}") for i in range(20)]
    assert len({tuple(other) for other in others}) > 5
    assert any(places(choice(sampling="random", seed=2), query="what") != first for _ in [0])
    drawn = {place for other in others for place in other}
    assert drawn == set(range(100, 110))  # every candidate of top_k may be drawn


def test_reasons_why_a_query_has_none() -> None:
    few = ranked(2)
    everything = np.arange(100, 102)
    nothing = {"excluded": np.array([], dtype=int), "query": "q"}
    margin = choice(filter=NegativeFilter(relative_margin=0.05))
    strict = choice(filter=NegativeFilter(max_score=-1))
    unknown = ranked(positive=np.nan)
    assert choice().choose(few, excluded=everything, query="q").reason == "no_candidate"
    assert choice().choose(ranked(0), **nothing).reason == "no_candidate_in_source"
    assert choice(rank_range=(5, 9)).choose(few, **nothing).reason == "outside_rank_range"
    assert margin.choose(unknown, **nothing).reason == "positive_without_score"
    assert choice().choose(unknown, **nothing).reason is None
    dropped = strict.choose(ranked(), **nothing)
    assert (dropped.reason, dropped.num_filtered) == ("filtered", 10)


def test_the_lowest_known_positive_is_the_reference() -> None:
    given = Ranked(
        places=np.arange(3),
        scores=np.array([0.9, 0.6, 0.3]),
        positive_scores=np.array([0.8, np.nan, 0.5]),
    )
    rules = choice(filter=NegativeFilter(absolute_margin=0))
    nothing = {"excluded": np.array([], dtype=int), "query": "q"}
    found = rules.choose(given, **nothing)
    assert found.places.tolist() == [2]
    assert found.lacks_positive_score
    assert not choice().choose(given, **nothing).lacks_positive_score  # compares with none
    assert not rules.choose(ranked(), **nothing).lacks_positive_score


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_negatives": 0}, r"task\.num_negatives=0: nothing would be mined"),
        ({"top_k": 0}, r"task\.top_k=0: nothing would be mined"),
        ({"rank_range": (5, 11)}, r"task\.rank_range=\[5,11\]: no ranks of task\.top_k=10"),
        ({"rank_range": (0, 5)}, r"task\.rank_range=\[0,5\]"),
        ({"rank_range": (6, 5)}, r"task\.rank_range=\[6,5\]"),
        ({"rank_range": (4, 5)}, r"task\.num_negatives=3: more than the 2 ranks"),
        ({"top_k": 2}, r"task\.num_negatives=3: more than the 2 ranks of task\.top_k=2"),
        ({"sampling": "best"}, r"task\.sampling=best: unknown"),
        ({"filter": NegativeFilter(max_score=np.nan)}, r"task\.filter\.max_score=nan: must be"),
        (
            {"filter": NegativeFilter(relative_margin=2), "key": "callbacks.refresh_negatives"},
            r"callbacks\.refresh_negatives\.filter\.relative_margin=2: out of range",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=f"{words}.*Fix: "):
        choice(**settings)
