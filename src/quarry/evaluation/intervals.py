"""Add bootstrap confidence intervals to a report."""

from __future__ import annotations

from dataclasses import replace

from quarry.metrics.bootstrap import bootstrap_intervals
from quarry.types import Report

LEVEL = 0.95


def with_intervals(report: Report) -> Report:
    """Return the report with 95 % confidence intervals for results that have per-query values."""
    results = tuple(
        result
        if result.intervals or not result.per_query
        else replace(result, intervals=bootstrap_intervals(result.per_query, level=LEVEL))
        for result in report.results
    )
    return replace(report, results=results)
