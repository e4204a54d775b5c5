"""What it came to and what it cost: `summary.json`, and the same numbers for the loggers."""

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
"""What W&B calls the table: the same in every run, so that it can show those of many as one."""

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
"""What an artifact of results holds: enough to score and compare a run again."""


def summary_of(
    reports: Sequence[Report],
    values: Mapping[str, float] | None = None,
    *,
    of: str,
    cost: RunCost,
    caveats: Sequence[str] = (),
) -> dict[str, Any]:
    """The content of `summary.json`.

    Args:
        values: further results.
        of: name of the report that the run is about; the others stand beside it.
        caveats: what a reader must know of the data that the model was trained on.

    Returns:
        "results": `<set>/<measure>` -> value, of sets, groups and the mean of all; "beside":
        `<retriever>/<set>/<measure>` -> value, of all other reports; "cost"; "caveats" where there
        are some.
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
    return summary | ({"caveats": list(caveats)} if caveats else {})


def write_summary(
    summary: Mapping[str, Any],
    reports: Sequence[Report],
    run: RunDirectory,
    loggers: Sequence[Logger],
) -> None:
    """To the run directory, and to the loggers as flat numbers: `results/scifact/ndcg_at_10`.

    W&B gets them where its panels look, in the summary of the run, and the table of `reports` and
    the files of the run beside. Only the first process writes.
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
    """One level, keys joined by slashes; what is not known is left out, and so are caveats."""
    return {
        f"{part}/{name}": value
        for part, values in summary.items()
        if isinstance(values, Mapping)
        for name, value in values.items()
        if value is not None
    }


def table_of_sets(reports: Sequence[Report]) -> tuple[list[str], list[list[Cell]]]:
    """Columns and rows: retriever, set, its group and size, and a column a measure."""
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
    """Ends a run whose results are written if some set failed.

    Raises:
        UserError: one did; the message names them. Why each failed was logged and is in the report.
    """
    failed = [report for report in reports if report.failures]
    if not failed:
        return
    parts = [f"{report.retriever}: {', '.join(report.failures)}" for report in failed]
    names = dict.fromkeys(name for report in failed for name in report.failures)
    raise UserError(
        f"{len(names)} of the sets failed, so there is no mean ({'; '.join(parts)}). Why stands "
        f"above and in {run.path / REPORT_FILE}, with the results of the others."
    )
