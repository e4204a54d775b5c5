"""Describe mined hard negatives: how many queries have some, and how ranks and scores spread."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quarry.mining.mining_job import MiningJob
from quarry.mining.negative_choice import (
    FILTERED,
    NO_CANDIDATE,
    NO_CANDIDATE_IN_SOURCE,
    OUTSIDE_RANK_RANGE,
    POSITIVE_WITHOUT_SCORE,
    REASONS,
)

QUANTILES = (0, 5, 25, 50, 75, 95, 100)
"""Percentiles that a report has of ranks and scores."""

_WORDS = {
    NO_CANDIDATE: "nothing but known positives was retrieved",
    OUTSIDE_RANK_RANGE: "no candidate in the rank range",
    POSITIVE_WITHOUT_SCORE: "the positive has no score to compare with",
    FILTERED: "the filter left nothing",
}


def mining_report(path: Path, counts: Counter[str]) -> dict[str, Any]:
    """Return counts and percentiles of a file of mined lines, which is read once.

    Args:
        path: the file.
        counts: as `mining_job` counts.
    """
    values: dict[str, array[float]] = {
        name: array("d") for name in ("ranks", "scores", "positive_scores")
    }
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            mined = json.loads(line)["mined"]
            if not mined["ranks"]:  # kept without hard negatives
                continue
            for name, found in values.items():
                found.extend(value for value in mined[name] if value is not None)
    return {
        "counts": {
            "queries_in": counts["queries_in"],
            "lines": counts["lines"],
            "queries_out": counts["queries_out"],
            "queries_with_fewer": counts["queries_with_fewer"],
            "queries_with_unscored_positive": counts["queries_with_unscored_positive"],
            "negatives": counts["negatives"],
            "positives_retrieved": counts["positives_retrieved"],
            "candidates_filtered": counts["candidates_filtered"],
            "without_negatives": {reason: counts[f"left_out_{reason}"] for reason in REASONS},
        },
        "percentiles": {name: _percentiles(found) for name, found in values.items()},
    }


def report_lines(report: Mapping[str, Any], work: MiningJob) -> list[str]:
    """Return the report of a mining as plain lines."""
    source, num_negatives = work.source, work.choice.num_negatives
    counts = report["counts"]
    words = _WORDS | {NO_CANDIDATE_IN_SOURCE: source.lacks}
    without = "Kept without hard negatives" if work.keep_queries else "Left out"
    facts = ", ".join(f"{name}={value}" for name, value in source.facts().items())
    lines = [
        f"Candidates: {source.setting}" + (f" ({facts})" if facts else ""),
        f"Queries: {counts['queries_in']} in, {counts['queries_out']} with hard negatives; "
        f"{counts['queries_with_fewer']} of these with fewer than {num_negatives}",
    ]
    lines += [
        f"{without}: {number} ({words[reason]})"
        for reason, number in counts["without_negatives"].items()
        if number
    ]
    if unscored := counts["queries_with_unscored_positive"]:
        lines.append(
            f"Margins: {unscored} compared with only those of their positives that have a score"
        )
    lines.append(
        f"Hard negatives: {counts['negatives']}; dropped by the filter: "
        f"{counts['candidates_filtered']}; known positives among the candidates: "
        f"{counts['positives_retrieved']}"
    )
    for name, found in report["percentiles"].items():
        if found:
            shown = ", ".join(f"{key} {value:.4g}" for key, value in found.items())
            lines.append(f"{name.replace('_', ' ').capitalize()} by percentile: {shown}")
    return lines


def _percentiles(values: array[float]) -> dict[str, float]:
    if not values:
        return {}
    known: NDArray[np.float64] = np.frombuffer(values)
    found = np.percentile(known, QUANTILES)
    return {f"p{q}": float(value) for q, value in zip(QUANTILES, found, strict=True)}
