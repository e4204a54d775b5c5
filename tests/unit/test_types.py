"""Means over sets, and over groups of them."""

from __future__ import annotations

import pytest

from quarry.types import Report, SetResult


def result(name: str, value: float, group: str | None = None) -> SetResult:
    return SetResult(
        name=name,
        metrics={"nDCG@10": value},
        per_query={},
        run={},
        num_queries=1,
        num_documents=1,
        group=group,
    )


def test_sets_of_a_group_count_as_one() -> None:
    report = Report(
        retriever="bm25",
        results=(result("a", 0.2, "forums"), result("scifact", 0.6), result("b", 0.4, "forums")),
    )

    assert report.mean("nDCG@10") == pytest.approx((0.3 + 0.6) / 2)


def test_a_set_named_as_a_group_is_not_in_it() -> None:
    report = Report(retriever="bm25", results=(result("forums", 1.0), result("a", 0.0, "forums")))

    assert report.mean("nDCG@10") == pytest.approx(0.5)
