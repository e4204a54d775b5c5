from __future__ import annotations

import pytest

from quarry.evaluation.constant_rankings import constant_ranking
from quarry.types import Run

SAME: Run = {f"q{i}": {"a": 2.0 + i, "b": 1.0} for i in range(10)}


@pytest.mark.parametrize(
    ("run", "told"),
    [
        ({"q": {"a": 0.0, "b": 0.0}}, "embeddings that are all zero"),
        ({"q": {"a": 1.0, "b": 1.0}, "r": {"b": 2.0, "c": 2.0}, "s": {"a": 1.0}}, "same score"),
        (SAME, "all 10 queries have the same ranking"),
    ],
)
def test_what_says_nothing_is_told(run: Run, told: str) -> None:
    assert told in str(constant_ranking(run))


@pytest.mark.parametrize(
    "run",
    [
        {},
        {"q": {}, "r": {"a": 0.0}},
        {"q": {"a": 1.0, "b": 1.0}, "r": {"b": 2.0, "c": 1.0}},
        dict(list(SAME.items())[:9]),
        {**SAME, "other": {"b": 2.0, "a": 1.0}},
    ],
)
def test_other_rankings_are_not(run: Run) -> None:
    assert constant_ranking(run) is None
