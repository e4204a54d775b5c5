"""Check and read `optimized_metric`, the one number that a sweeper gets for a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quarry.errors import UserError

STAGES = ("best", "trained", "val")
"""Whose metric it is: of a training run the best model's, where one is kept, else the last one's;
of an evaluation the model's."""


def check_optimized_metric(metric: str | None, names: Sequence[str]) -> None:
    """Refuses, before anything runs, an `optimized_metric` that no evaluation will have.

    Args:
        metric: SET/MEASURE, GROUP/MEASURE or mean/MEASURE; None: nothing is optimized.
        names: metrics of the evaluation, `val/SET/MEASURE`.
    """
    known = [name.removeprefix("val/") for name in names]
    if metric is not None and metric not in known:
        there_is = f"There is {', '.join(known)}." if known else "benchmark=none has no metrics."
        raise UserError(f"optimized_metric={metric} is nothing that will be measured. {there_is}")


def optimized_metric_of(result: Mapping[str, float], metric: str) -> float:
    """The value of `metric` in what a task returned.

    Raises:
        UserError: it was not measured; the message has what was.
    """
    for stage in STAGES:
        if f"{stage}/{metric}" in result:
            return float(result[f"{stage}/{metric}"])
    known = ", ".join(result) or "nothing"
    raise UserError(f"optimized_metric={metric} was not measured; the result has {known}.")
