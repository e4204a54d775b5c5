"""Bootstrap intervals: against theory, against a plain loop, and at their borders."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from quarry.metrics import bootstrap
from quarry.metrics.bootstrap import bootstrap_intervals, stratified_interval


def per_query(values: np.ndarray, measure: str = "m") -> dict[str, dict[str, float]]:
    return {measure: {f"q{i}": float(value) for i, value in enumerate(values)}}


def test_half_zeros_and_half_ones_are_as_wide_as_the_binomial_says() -> None:
    low, high = bootstrap_intervals(per_query(np.arange(400) % 2))["m"]
    half = 1.96 * math.sqrt(0.25 / 400)  # 0.049
    # Monte Carlo error of a 2.5 % quantile of 2,000 draws: about 0.0015 here
    assert low == pytest.approx(0.5 - half, abs=0.005)
    assert high == pytest.approx(0.5 + half, abs=0.005)


def test_it_is_what_a_plain_loop_gives() -> None:
    values = np.random.default_rng(3).random(30)
    found = bootstrap_intervals(per_query(values), num_resamples=500, seed=7, level=0.9)["m"]
    order = [int(name[1:]) for name in sorted(f"q{i}" for i in range(30))]
    rng = np.random.default_rng(7)
    means = [values[order][rng.integers(30, size=30)].mean() for _ in range(500)]
    assert found == pytest.approx(tuple(np.quantile(means, [0.05, 0.95])), abs=1e-12)


def test_it_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(300):
        values = rng.random(60)  # mean 0.5
        low, high = bootstrap_intervals(per_query(values), num_resamples=400, seed=seed)["m"]
        hits += low <= 0.5 <= high
    # 95 % of 300 is 285; four standard deviations are 15, and it is a little too narrow by nature
    assert 265 <= hits <= 298


def test_neither_order_nor_company_nor_portions_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).random(50)
    alone = bootstrap_intervals(per_query(values))["m"]
    reverse = {"m": dict(reversed(per_query(values)["m"].items()))}
    assert bootstrap_intervals(reverse)["m"] == alone
    together = bootstrap_intervals(per_query(1 - values, "other") | per_query(values))
    assert together["m"] == pytest.approx(alone, abs=1e-12)
    # the same resamples: the interval of 1 - x is that of x, turned round
    assert together["other"] == pytest.approx((1 - alone[1], 1 - alone[0]), abs=1e-12)
    monkeypatch.setattr(bootstrap, "NUM_DRAWS_AT_A_TIME", 333)
    assert bootstrap_intervals(per_query(values))["m"] == pytest.approx(alone, abs=1e-12)
    assert bootstrap_intervals(per_query(values), seed=1)["m"] != alone


def test_borders() -> None:
    assert bootstrap_intervals({}) == {}
    assert bootstrap_intervals({"m": {}}) == {}
    assert bootstrap_intervals({"m": {"q": 0.25}}) == {"m": (0.25, 0.25)}
    assert bootstrap_intervals(per_query(np.zeros(9))) == {"m": (0.0, 0.0)}


def test_msmarco_dev_takes_a_second_not_a_minute() -> None:
    values = np.random.default_rng(0).random(7_000)
    start = time.perf_counter()
    bootstrap_intervals({name: per_query(values, name)[name] for name in ("a", "b", "c")})
    assert time.perf_counter() - start < 10  # measured: 0.3 s


def test_a_stratified_interval_of_one_set_is_the_plain_one() -> None:
    values = np.random.default_rng(3).random(50)
    per_query = {"m": {f"q{i:02d}": float(value) for i, value in enumerate(values)}}
    low, high = bootstrap_intervals(per_query, num_resamples=20_000)["m"]
    found = stratified_interval([values], weights=[1.0], num_resamples=20_000)
    assert found == pytest.approx((low, high), abs=0.004)


def test_sets_of_a_stratified_interval_count_as_weighted_and_vary_apart() -> None:
    rng = np.random.default_rng(4)
    wide, narrow = rng.random(40), np.full(7, 0.25)
    low, high = stratified_interval([wide, narrow], weights=[0.5, 0.5])
    alone = stratified_interval([wide], weights=[1.0])
    # a set without spread only shifts the interval
    assert (low, high) == pytest.approx((alone[0] / 2 + 0.125, alone[1] / 2 + 0.125))
    two_low, two_high = stratified_interval([wide, wide], weights=[0.5, 0.5])
    # independent draws: narrower by the square root of two
    assert two_high - two_low == pytest.approx((alone[1] - alone[0]) / 2**0.5, rel=0.1)
