"""What it came to and what it cost: `summary.json`, and the same numbers for the loggers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytorch_lightning.loggers import Logger, WandbLogger

from quarry.distributed import world
from quarry.evaluation.run_cost import RunCost
from quarry.runtime.files import write_json
from quarry.runtime.run_directory import RunDirectory
from quarry.training.evaluation_log import metric_values
from quarry.types import Report


def summary_of(
    reports: Sequence[Report],
    values: Mapping[str, float] | None = None,
    *,
    of: str,
    cost: RunCost,
) -> dict[str, Any]:
    """The content of `summary.json`.

    Args:
        values: further results.
        of: name of the report that the run is about; the others stand beside it.

    Returns:
        "results": `<set>/<measure>` -> value, of sets, groups and the mean of all; "beside":
        `<retriever>/<set>/<measure>` -> value, of all other reports; "cost".
    """
    results = dict(values or {})
    beside: dict[str, float] = {}
    for report in reports:
        for key, value in metric_values(report).items():
            name = key.removeprefix("val/")
            if report.retriever == of:
                results[name] = value
            else:
                beside[f"{report.retriever}/{name}"] = value
    return {"results": results, "beside": beside, "cost": cost.as_json()}


def write_summary(summary: Mapping[str, Any], run: RunDirectory, loggers: Sequence[Logger]) -> None:
    """To the run directory, and to the loggers as flat numbers: `results/scifact/ndcg_at_10`.

    W&B gets them where its panels look, in the summary of the run. Only the first process writes.
    """
    if not world.is_launched_first():
        return
    write_json(run.summary, summary)
    flat = flattened(summary)
    for each in loggers:
        if isinstance(each, WandbLogger):
            each.experiment.summary.update(flat)
        else:
            each.log_metrics({k: float(v) for k, v in flat.items() if not isinstance(v, str)})


def flattened(summary: Mapping[str, Any]) -> dict[str, float | str]:
    """One level, keys joined by slashes; what is not known is left out."""
    return {
        f"{part}/{name}": value
        for part, values in summary.items()
        for name, value in values.items()
        if value is not None
    }
