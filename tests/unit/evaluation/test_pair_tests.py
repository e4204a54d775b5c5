"""Tests between systems: by enumeration, corrected together, within sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from statistics import fmean

import numpy as np
import pytest

from helpers.study_runs import a_set
from quarry.errors import UserError
from quarry.evaluation.pair_tests import MEAN, PairTest, paired_tests
from quarry.evaluation.significance_test import SignificanceTest
from quarry.metrics.significance import holm
from quarry.types import Report

TEST = SignificanceTest(num_permutations=5000)
VALUES = {"a": [0.9, 0.8, 0.7, 0.9, 0.6], "b": [0.1, 0.3, 0.2, 0.5, 0.5], "c": [0.2, 0.3] * 2}
VALUES["c"].append(0.4)


def reports(**systems: Mapping[str, Sequence[float]]) -> list[Report]:
    """system -> set -> values."""
    return [
        Report(retriever=name, results=tuple(a_set(s, values) for s, values in sets.items()))
        for name, sets in systems.items()
    ]


def compared(
    given: Sequence[Report], test: SignificanceTest = TEST, base: str | None = None
) -> list[PairTest]:
    return paired_tests(given, measure="nDCG@10", test=test, base=base)


def enumerated(*sets: Sequence[float]) -> float:
    """The share of all signs that make the mean of the sets' means as far from 0."""
    observed = abs(fmean(map(fmean, sets)))
    num_signs = sum(map(len, sets))
    num_extreme = 0
    for signs in product((1, -1), repeat=num_signs):
        left = iter(signs)
        mean = fmean(fmean(next(left) * value for value in part) for part in sets)
        num_extreme += abs(mean) >= observed - 1e-12
    return num_extreme / 2**num_signs


def differences(first: str, second: str) -> list[float]:
    return [x - y for x, y in zip(VALUES[first], VALUES[second], strict=True)]


def test_all_pairs_are_tested_and_corrected_together() -> None:
    found = compared(reports(**{name: {"one": values} for name, values in VALUES.items()}))
    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    assert [(each.first, each.second) for each in found] == pairs
    exact = [enumerated(differences(*pair)) for pair in pairs]
    assert [each.p_value for each in found] == pytest.approx(exact)
    assert [each.corrected for each in found] == pytest.approx(list(holm(np.array(exact))))
    assert found[0].difference == pytest.approx(fmean(differences("a", "b")))
    assert (found[0].where, found[0].num_queries) == ("one", 5)


def test_with_a_base_the_others_are_compared_with_it() -> None:
    given = reports(**{name: {"one": values} for name, values in VALUES.items()})
    found = compared(given, base="b")
    assert [(each.first, each.second) for each in found] == [("a", "b"), ("c", "b")]
    with pytest.raises(UserError, match=r"task\.base=x: there is no such system .*a, b, c"):
        compared(given, base="x")


def test_the_mean_over_sets_tosses_signs_within_each() -> None:
    given = reports(
        a={"one": VALUES["a"], "two": VALUES["b"][:3]}, b={"one": VALUES["c"], "two": [0.4] * 3}
    )
    found = {each.where: each for each in compared(given)}
    parts = differences("a", "c"), [value - 0.4 for value in VALUES["b"][:3]]
    assert list(found) == ["one", "two", MEAN]
    assert found[MEAN].p_value == pytest.approx(enumerated(*parts))
    assert found[MEAN].difference == pytest.approx(fmean(map(fmean, parts)))
    assert found[MEAN].num_queries == 8


def test_a_set_that_a_system_lacks_is_in_no_test_of_it_and_in_no_mean() -> None:
    given = reports(a={"one": [0.5], "two": [0.5]}, b={"two": [0.25]})
    given[1] = Report(retriever="b", results=given[1].results, failures={"one": "no run"})
    assert [(each.where, each.difference) for each in compared(given)] == [("two", 0.25)]


def test_one_system_has_nobody_to_differ_from() -> None:
    assert compared(reports(a={"one": [0.5]})) == []


def test_too_few_permutations_are_refused() -> None:
    given = reports(**{name: {"one": values} for name, values in VALUES.items()})
    with pytest.raises(UserError, match=r"task\.num_permutations=10: .* 3 comparisons"):
        compared(given, SignificanceTest(num_permutations=10))
