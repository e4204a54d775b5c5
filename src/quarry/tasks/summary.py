"""Write `summary.json`, the final metrics and cost of a run, and log the same numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytorch_lightning.loggers import Logger

from quarry.distributed import world
from quarry.errors import UserError
from quarry.evaluation.report import REPORT_FILE
from quarry.evaluation.run_cost import RunCost
from quarry.runtime.files import write_json
from quarry.runtime.run_directory import RunDirectory
from quarry.training.evaluation_log import Cell, metric_values
from quarry.training.wandb_run import WandbRun
from quarry.types import Report

SETS_TABLE = "results_by_set"
"""Name of the table in W&B: the same in every run, so that W&B can join the tables of runs."""

RESULT_FILES = (
    "config.yaml",
    "config_resolved.yaml",
    "provenance.json",
    "summary.json",
    "metrics.json",
    "report.md",
    "score.json",
    "learning_curve.json",
    "per_query",
    "runs",
)
"""Files of the results artifact: enough to rescore and compare the run."""


def summary_of(
    reports: Sequence[Report],
    values: Mapping[str, float] | None = None,
    *,
    of: str,
    cost: RunCost,
    caveats: Sequence[str] = (),
    training_data: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the content of `summary.json`.

    Args:
        values: further results.
        of: name of the run's main report; the others go to "beside".
        caveats: of the training data, for readers of the results.
        training_data: its number of examples and digest.

    Returns:
        "results": `<set>/<measure>` -> value, of sets, groups and the mean of all; "beside":
        `<retriever>/<set>/<measure>` -> value, of all other reports; "cost"; "training_data" of a
        training run; "caveats" where there are some.
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
    summary = {"results": results, "beside": beside, "cost": cost.as_json()}
    if training_data is not None:
        summary["training_data"] = dict(training_data)
    return summary | ({"caveats": list(caveats)} if caveats else {})


def write_summary(
    summary: Mapping[str, Any],
    reports: Sequence[Report],
    run: RunDirectory,
    loggers: Sequence[Logger],
) -> None:
    """Write the summary to the run directory and, flat, to the loggers.

    Loggers receive numbers such as `results/scifact/ndcg_at_10`. W&B receives them in the run's
    summary, where its panels look, with the table of `reports` and the run's files. Only rank 0
    writes.
    """
    if not world.is_launched_first():
        return
    write_json(run.summary, summary)
    flat = flat_summary(summary)
    for each in loggers:
        if isinstance(each, WandbRun):
            each.experiment.summary.update(flat)
            if reports:
                columns, rows = table_of_sets(reports)
                each.log_table(SETS_TABLE, columns=columns, data=rows)
            each.log_files("results", run.path, RESULT_FILES)
            each.log_files("model", run.model, ["."])
        else:
            each.log_metrics({k: float(v) for k, v in flat.items() if not isinstance(v, str)})


def flat_summary(summary: Mapping[str, Any]) -> dict[str, float | str]:
    """Return the summary on one level, keys joined by slashes, without unknowns and caveats."""
    return {
        f"{part}/{name}": value
        for part, values in summary.items()
        if isinstance(values, Mapping)
        for name, value in values.items()
        if value is not None
    }


def table_of_sets(reports: Sequence[Report]) -> tuple[list[str], list[list[Cell]]]:
    """Return columns and rows: retriever, set, its group and sizes, and each measure."""
    measures = list(dict.fromkeys(m for each in reports for r in each.results for m in r.metrics))
    rows: list[list[Cell]] = [
        [
            report.retriever,
            result.name,
            result.group,
            result.num_queries,
            result.num_documents,
            *(result.metrics.get(measure) for measure in measures),
        ]
        for report in reports
        for result in report.results
    ]
    return ["retriever", "set", "group", "queries", "documents", *measures], rows


def refuse_failures(reports: Sequence[Report], run: RunDirectory) -> None:
    """Raise an error if a set failed; the results are already written.

    Raises:
        UserError: with the names of the failed sets. The reasons are in the log and the report.
    """
    failed = [report for report in reports if report.failures]
    if not failed:
        return
    parts = [f"{report.retriever}: {', '.join(report.failures)}" for report in failed]
    names = dict.fromkeys(name for report in failed for name in report.failures)
    raise UserError(
        f"{len(names)} of the sets failed, so there is no mean ({'; '.join(parts)}). The reasons "
        f"are above and in {run.path / REPORT_FILE}, with the results of the others."
    )
