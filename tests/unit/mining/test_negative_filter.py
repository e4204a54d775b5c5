"""Every filter equals a few lines of plain numpy, also where scores are negative."""

from __future__ import annotations

import numpy as np
import pytest

from quarry.errors import UserError
from quarry.mining.negative_filter import NegativeFilter

SCORES = np.random.default_rng(0).normal(size=200)
POSITIVES = np.random.default_rng(1).normal(size=50)


@pytest.mark.parametrize("positive", [0.8, 0.0, -0.5])
def test_absolute_bounds(positive: float) -> None:
    kept = NegativeFilter(max_score=0.3).keeps(SCORES, positive_score=positive)
    assert kept.tolist() == [score < 0.3 for score in SCORES.tolist()]
    kept = NegativeFilter(absolute_margin=0.1).keeps(SCORES, positive_score=positive)
    assert kept.tolist() == [score < positive - 0.1 for score in SCORES.tolist()]
    assert 0 < kept.sum() < len(SCORES)


def test_relative_bound_is_95_percent_of_a_positive_score() -> None:
    kept = NegativeFilter(relative_margin=0.05).keeps(SCORES, positive_score=0.8)
    assert kept.tolist() == [score < 0.95 * 0.8 for score in SCORES.tolist()]


def test_relative_bound_lies_below_the_positive_whatever_its_sign() -> None:
    keeps = NegativeFilter(relative_margin=0.05).keeps
    scores = np.array([-9.5, -10.0, -10.4, -10.6])
    # 95 % of -10 would be -9.5: above the positive
    assert keeps(scores, positive_score=-10.0).tolist() == [False, False, False, True]
    assert keeps(np.array([0.0, -0.1]), positive_score=0.0).tolist() == [False, True]


def test_percentile_is_that_of_the_positives() -> None:
    chosen = NegativeFilter(percentile=20)
    with_gaps = np.append(POSITIVES, np.nan)
    bound = chosen.percentile_of(with_gaps, key="task.filter")
    ordered = np.sort(POSITIVES)  # linear between the neighbours of rank 0.2 * 49 = 9.8
    assert bound == pytest.approx(0.2 * ordered[9] + 0.8 * ordered[10])
    kept = chosen.keeps(SCORES, positive_score=np.nan, percentile_score=bound)
    assert kept.tolist() == [score < bound for score in SCORES.tolist()]


def test_all_bounds_hold_together() -> None:
    both = NegativeFilter(max_score=0.5, absolute_margin=0.1, relative_margin=0.5)
    kept = both.keeps(SCORES, positive_score=0.7)
    assert kept.tolist() == [
        s < 0.5 and s < 0.6 and s < 0.35 for s in SCORES.tolist()
    ]  # fmt: skip
    assert NegativeFilter().keeps(SCORES, positive_score=np.nan).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [("relative_margin", 1.5), ("percentile", 101), ("max_score", np.nan), ("percentile", -1)],
)
def test_numbers_out_of_range_are_refused_with_their_key(name: str, value: float) -> None:
    given = NegativeFilter(**{name: value})  # by Hydra, before the configuration is checked
    with pytest.raises(UserError, match=rf"^task\.filter\.{name}=.*Fix: task\.filter\.{name}="):
        given.check(key="task.filter")


def test_a_percentile_of_no_scores_is_refused() -> None:
    with pytest.raises(UserError, match=r"^task\.filter\.percentile=5: no positive has a score"):
        NegativeFilter(percentile=5).percentile_of(np.array([np.nan]), key="task.filter")
