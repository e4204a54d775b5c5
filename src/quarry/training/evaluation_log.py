"""Log an evaluation: metrics to all loggers, tables to Weights & Biases."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from statistics import fmean

from pytorch_lightning.loggers import Logger, WandbLogger

from quarry.errors import UserError
from quarry.evaluation.evaluator import Evaluator
from quarry.evaluation.examples import NUM_DOCUMENTS, Example, examples_of
from quarry.types import Report

MEAN = "mean"
RESULTS_TABLE = "val/results"
EXAMPLES_TABLE = "val/examples"
MAX_EXAMPLES = 200
"""Rows of the examples table over all sets: about 200 KiB an evaluation."""

Cell = str | float | int | bool | None


def metric_values(report: Report) -> dict[str, float]:
    """Return `val/<set>/<measure>` -> value, with measures such as ndcg_at_10.

    Each group of sets that counts as one has values, too, and so has `mean`: the mean over sets and
    groups. If sets failed, they have no values and there is no mean.
    """
    return {f"val/{name}/{measure_key(measure)}": value for name, measure, value in _values(report)}


def metric_names(evaluator: Evaluator) -> list[str]:
    """Return the keys of `metric_values` for the reports of this evaluator.

    Raises:
        UserError: two sets or groups have the same name, or one is named "mean".
    """
    sets = [benchmark_set.name for benchmark_set in evaluator.benchmark.sets]
    groups = dict.fromkeys(s.group for s in evaluator.benchmark.sets if s.group is not None)
    names = [*sets, *groups, MEAN]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(
            f"{evaluator.benchmark.name}: {', '.join(twice)} would name two things in the logs (a "
            "set, a group of sets, or the mean over all). Rename the set."
        )
    return [f"val/{name}/{measure_key(m)}" for name in names for m in evaluator.measures]


def measure_key(measure: str) -> str:
    """Return a measure's name in metric keys: `nDCG@10` -> `ndcg_at_10`."""
    return re.sub(r"[^a-z0-9]+", "_", measure.lower().replace("@", "_at_"))


def log_report(
    loggers: Sequence[Logger],
    report: Report,
    *,
    evaluator: Evaluator,
    step: int | None = None,
    baseline: Report | None = None,
    num_examples: int = 0,
) -> None:
    """Log metrics to every logger, and to W&B also tables of results and of example queries.

    Args:
        step: the optimizer step, W&B's x-axis.
        baseline: report of the baseline, for the table's comparison.
        num_examples: queries a set in the examples table, at most 200 in all; 0: none.
    """
    for pl_logger in loggers:
        pl_logger.log_metrics(metric_values(report), step=step)
        if isinstance(pl_logger, WandbLogger):
            columns, rows = results_table(report, baseline)
            pl_logger.log_table(RESULTS_TABLE, columns=columns, data=rows, step=step)
            columns, rows = examples_table(_examples(report, evaluator, num_examples))
            if rows:
                pl_logger.log_table(EXAMPLES_TABLE, columns=columns, data=rows, step=step)


def results_table(report: Report, baseline: Report | None) -> tuple[list[str], list[list[Cell]]]:
    """Return columns and rows: set (or group, or mean), metric, value, and the baseline's value."""
    if baseline is None:
        return ["set", "metric", "value"], [list(row) for row in _values(report)]
    known = {(name, measure): value for name, measure, value in _values(baseline)}
    rows: list[list[Cell]] = []
    for name, measure, value in _values(report):
        theirs = known.get((name, measure))
        rows.append([name, measure, value, theirs, None if theirs is None else value - theirs])
    return ["set", "metric", "value", baseline.retriever, "delta"], rows


def examples_table(examples: Sequence[Example]) -> tuple[list[str], list[list[Cell]]]:
    """Return columns and rows: query, rank of its first relevant document, best documents."""
    columns = ["set", "query_id", "query", "first_relevant_rank"]
    for place in range(1, NUM_DOCUMENTS + 1):
        columns += [f"document_{place}", f"score_{place}", f"is_relevant_{place}", f"text_{place}"]
    rows: list[list[Cell]] = []
    for each in examples:
        row: list[Cell] = [each.set_name, each.query_id, each.text, each.first_relevant]
        for found in each.documents:
            row += [found.document_id, found.score, found.is_relevant, found.text]
        rows.append(row + [None] * (len(columns) - len(row)))
    return columns, rows


def _examples(report: Report, evaluator: Evaluator, num_examples: int) -> list[Example]:
    sets = {benchmark_set.name: benchmark_set for benchmark_set in evaluator.benchmark.sets}
    examples: list[Example] = []
    for result in report.results:
        examples += examples_of(
            sets[result.name].data,
            result.run,
            set_name=result.name,
            num_examples=min(num_examples, MAX_EXAMPLES - len(examples)),
        )
    return examples


def _values(report: Report) -> Iterator[tuple[str, str, float]]:
    """Yield (set or group or mean, measure, value), the sets first."""
    groups: dict[str, list[str]] = {}
    by_name = {result.name: result.metrics for result in report.results}
    for result in report.results:
        if result.group is not None:
            groups.setdefault(result.group, []).append(result.name)
        for measure, value in result.metrics.items():
            yield result.name, measure, value
    for group, members in groups.items():
        for measure in by_name[members[0]]:
            yield group, measure, fmean(by_name[name][measure] for name in members)
    if by_name and not report.failures:
        for measure in next(iter(by_name.values())):
            yield MEAN, measure, report.mean(measure)
