"""Randomization tests: by hand, by enumeration, and their own promise on shuffled values."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from quarry.metrics.significance import holm, randomization_p_values


def by_enumeration(differences: np.ndarray, weights: np.ndarray) -> float:
    """The definition, toss by toss."""
    parts = differences * weights
    sums = [
        abs(sum(s * p for s, p in zip(signs, parts, strict=True)))
        for signs in product((1, -1), repeat=len(parts))
    ]
    return sum(total >= abs(parts.sum()) - 1e-12 for total in sums) / len(sums)


def test_three_queries_by_hand() -> None:
    # sums of +-1 +-2 +-4 are +-7 +-5 +-3 +-1, each once: two of eight are as far from 0 as 7, and
    # all as far as 1 + 2 - 4
    differences = np.array([[1.0, 1.0], [2.0, 2.0], [4.0, -4.0]])
    assert randomization_p_values(differences).tolist() == [2 / 8, 8 / 8]


def test_queries_that_do_not_differ_change_nothing() -> None:
    few = np.array([0.5, 0.25, 0.125, -0.0625])
    many = np.concatenate([few, np.zeros(500)])
    assert randomization_p_values(many[:, None]) == randomization_p_values(few[:, None])
    assert randomization_p_values(np.zeros((7, 1))).tolist() == [1.0]


@pytest.mark.parametrize("seed", range(5))
def test_exact_values_are_those_of_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # values of MRR: many ties, and sums that differ by rounding alone
    differences = rng.choice([1, 1 / 2, 1 / 3, 1 / 5], 10) - rng.choice([1, 1 / 2, 1 / 3, 0], 10)
    weights = rng.choice([1 / 30, 1 / 7], 10)
    (found,) = randomization_p_values(differences[:, None], weights=weights)
    assert found == by_enumeration(differences, weights)


def test_drawn_values_are_near_the_exact_ones_and_count_the_observed_toss() -> None:
    differences = np.random.default_rng(1).normal(0.2, 0.5, (12, 3))
    exact = randomization_p_values(differences, num_permutations=2**12)
    drawn = randomization_p_values(differences, num_permutations=2**12 - 1, seed=3)
    assert drawn == pytest.approx(exact, abs=5 * 0.5 / 2**6)  # five standard errors at p = 0.5
    assert (drawn != exact).any()
    certain = np.full((1000, 1), 0.3)
    assert randomization_p_values(certain, num_permutations=999).tolist() == [1 / 1000]


def test_the_same_seed_the_same_values_and_sizes_do_not_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    differences = np.random.default_rng(2).normal(0.05, 0.5, (101, 4))
    first = randomization_p_values(differences, seed=5)
    assert (first == randomization_p_values(differences, seed=5)).all()
    assert (first != randomization_p_values(differences, seed=6)).any()
    monkeypatch.setattr("quarry.metrics.significance.NUM_SIGNS_AT_A_TIME", 1010)
    assert randomization_p_values(differences, seed=5) == pytest.approx(first, abs=0.02)


def test_sets_are_strata_of_one_weight_each() -> None:
    # five queries of one set and a hundred of another: each set counts half
    differences = np.array([0.9] * 5 + [-0.001] * 100)
    by_set = np.array([1 / (2 * 5)] * 5 + [1 / (2 * 100)] * 100)
    (pooled,) = randomization_p_values(differences[:, None], seed=1)
    (stratified,) = randomization_p_values(differences[:, None], weights=by_set, seed=1)
    # the sum over sets is furthest from 0 when the five agree: 2 of 32 tosses
    assert stratified == pytest.approx(2 / 32, abs=0.01)
    assert pooled == pytest.approx(2 / 32, abs=0.01)
    swapped = np.array([0.9] * 5 + [-0.5] * 100)
    (pooled,) = randomization_p_values(swapped[:, None], seed=1)
    (stratified,) = randomization_p_values(swapped[:, None], weights=by_set, seed=1)
    assert pooled < 0.001  # a hundred queries that are worse
    assert stratified > 0.05  # against one set that is better by more


@pytest.mark.parametrize("num_queries", [10, 60])
def test_five_in_a_hundred_alarms_are_false(num_queries: int) -> None:
    """Two retrievers whose values are shuffled within each query are alike by construction."""
    num_experiments, alpha = 2000, 0.05
    rng = np.random.default_rng(num_queries)
    first = rng.beta(0.4, 0.6, (num_queries, num_experiments))
    second = np.clip(first + rng.normal(0.1, 0.2, first.shape), 0, 1)
    is_swapped = rng.random(first.shape) < 0.5
    differences = np.where(is_swapped, first - second, second - first)
    weights = np.where(np.arange(num_queries) < 4, 1 / 4, 1 / (num_queries - 4)) / 2
    for weighting in (None, weights):
        p_values = randomization_p_values(differences, weights=weighting, num_permutations=2000)
        rate = (p_values <= alpha).mean()
        # four standard deviations of a binomial share
        assert rate == pytest.approx(alpha, abs=4 * np.sqrt(alpha * (1 - alpha) / num_experiments))


def test_a_real_difference_is_found() -> None:
    rng = np.random.default_rng(0)
    differences = rng.normal(0.05, 0.2, (300, 200))
    assert (randomization_p_values(differences, num_permutations=2000) <= 0.05).mean() > 0.95


def test_holm_by_hand() -> None:
    # sorted: 0.01 x 4, 0.02 x 3, 0.03 x 2, 0.3 x 1; none below the one before it
    p_values = np.array([0.03, 0.01, 0.3, 0.02])
    assert holm(p_values) == pytest.approx([0.06, 0.04, 0.3, 0.06])
    # 0.04 x 3 = 0.12; 0.05 x 2 = 0.10 rises to it; 0.06 x 1 likewise
    assert holm(np.array([0.05, 0.04, 0.06])) == pytest.approx([0.12, 0.12, 0.12])
    assert holm(np.array([0.7, 0.8])).tolist() == [1.0, 1.0]
    assert holm(np.array([0.2])).tolist() == [0.2]
    assert holm(np.array([])).tolist() == []


def test_holm_keeps_any_false_alarm_rare() -> None:
    p_values = np.random.default_rng(0).random((2000, 8))
    alarms = np.array([(holm(row) <= 0.05).any() for row in p_values])
    assert alarms.mean() == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 2000))
