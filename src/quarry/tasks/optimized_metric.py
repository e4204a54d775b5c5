"""Check and read `optimized_metric`, the number that a job returns to a sweeper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quarry.errors import UserError

STAGES = ("best", "trained", "val")
"""Prefixes of the metric, in order of preference.

For training, the best model's if one is saved, else the last one's; for evaluation, the model's.
"""


def check_optimized_metric(metric: str | None, names: Sequence[str]) -> None:
    """Refuse, before anything runs, an `optimized_metric` that no evaluation will have.

    Args:
        metric: SET/MEASURE, GROUP/MEASURE or mean/MEASURE; None: nothing is optimized.
        names: metrics of the evaluation, `val/SET/MEASURE`.
    """
    known = [name.removeprefix("val/") for name in names]
    if metric is not None and metric not in known:
        there_is = f"There is {', '.join(known)}." if known else "benchmark=none has no metrics."
        raise UserError(f"optimized_metric={metric}: not a metric of this run. {there_is}")


def optimized_metric_of(result: Mapping[str, float], metric: str) -> float:
    """Return the value of `metric` in a task's result.

    Raises:
        UserError: it was not measured; the message lists what was.
    """
    for stage in STAGES:
        if f"{stage}/{metric}" in result:
            return float(result[f"{stage}/{metric}"])
    known = ", ".join(result) or "nothing"
    raise UserError(f"optimized_metric={metric} was not measured; the result has {known}.")
