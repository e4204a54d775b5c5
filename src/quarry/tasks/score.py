"""Score rankings from run files of any origin, under any convention, without a model."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from omegaconf import DictConfig

from quarry.assembly.run_start import record_start, stored_hyperparameters
from quarry.assembly.trainer import opened_loggers
from quarry.assembly.wandb_identity import identity_of
from quarry.config.contract import explicit_keys
from quarry.config.instantiate import build
from quarry.config.overrides import refuse_other_overrides, warn_without_effect
from quarry.config.validation import validate
from quarry.distributed import world
from quarry.errors import UserError
from quarry.evaluation.benchmark import Benchmark
from quarry.evaluation.benchmarks.given_judgements import judgements_benchmark
from quarry.evaluation.evaluator import Evaluator
from quarry.evaluation.given_files import NO_RUNS, find_run_files
from quarry.evaluation.given_rankings import score_given
from quarry.evaluation.given_report import (
    GivenScores,
    given_remarks,
    given_sections,
    terminal_tests,
)
from quarry.evaluation.pair_tests import paired_tests
from quarry.evaluation.report import REPORT_FILE, result_line, terminal_table
from quarry.evaluation.significance_test import SignificanceTest
from quarry.runtime.failed_start import removes_failed_start
from quarry.runtime.files import write_json, write_text
from quarry.runtime.logging import logs_to, quiet_libraries
from quarry.runtime.ownership import begun_run
from quarry.runtime.task_output import show
from quarry.tasks.evaluate import write_and_draw
from quarry.tasks.summary import summary_of, write_summary
from quarry.training.callbacks.cost_meter import CostMeter
from quarry.training.evaluation_log import log_report, metric_values
from quarry.types import Report

logger = logging.getLogger(__name__)

SCORE_FILE = "score.json"
"""File with the runs' sources, their coverage of the judged queries, and significance tests."""


def score(
    config: DictConfig,
    *,
    runs: str | Sequence[str] | Mapping[str, Any] | None,
    qrels: str | Mapping[str, str] | None,
    names: Sequence[Any] | None,
    remove_self_match: bool,
    base: str | None,
    alpha: float,
    num_permutations: int,
) -> dict[str, float]:
    """Score `task.runs` by a benchmark or by `task.qrels`; write a run directory.

    Returns:
        `score/<system>/<set>/<measure>` -> value.

    Raises:
        UserError: no runs or no judgements are given, a file is missing or malformed, or no query
            of a run is judged.
    """
    quiet_libraries()
    meter = CostMeter()
    _refuse_without_effect()
    if not runs:
        raise UserError(NO_RUNS)
    validate(config, primary="eval")
    test = SignificanceTest(alpha=alpha, num_permutations=num_permutations, seed=config.seed)
    benchmark = _benchmark(config, qrels, remove_self_match=remove_self_match)
    if not world.is_launched_first():  # rank 0 does it for all
        return {}
    is_cut = "evaluation.top_k" in explicit_keys()
    evaluator = _evaluator(config, benchmark, is_cut=is_cut)
    files = find_run_files(runs, [each.name for each in benchmark.sets])

    def scored() -> tuple[list[Report], GivenScores]:
        reports, rankings = score_given(files, evaluator, names=names, is_cut=is_cut)
        tests = paired_tests(reports, measure=evaluator.measures[0], test=test, base=base)
        return reports, GivenScores(
            rankings=rankings, tests=tests, test=test, measures=evaluator.measures
        )

    reports = _score_into(config, scored, evaluator, meter)
    return {
        f"score/{report.retriever}/{key.removeprefix('val/')}": value
        for report in reports
        for key, value in metric_values(report).items()
    }


def _evaluator(config: DictConfig, benchmark: Benchmark, *, is_cut: bool) -> Evaluator:
    """Return an evaluator of complete rankings, as in trec_eval; the command line may truncate."""
    return Evaluator(
        benchmark=benchmark,
        measures=list(config.evaluation.measures),
        top_k=config.evaluation.top_k if is_cut else sys.maxsize,
        convention=build(config.convention),
    )


def _refuse_without_effect() -> None:
    refuse_other_overrides(
        (
            "task", "benchmark", "convention", "evaluation.measures", "evaluation.top_k", "seed",
            "paths", "logger", "hydra",
        ),
        why="has no effect on task=score, which takes rankings from task.runs as they are. Fix: "
        "leave it out.",
    )  # fmt: skip
    warn_without_effect(["convention.title"], reason="task=score: the rankings are given")


def _benchmark(
    config: DictConfig, qrels: str | Mapping[str, str] | None, *, remove_self_match: bool
) -> Benchmark:
    has_benchmark = not str(config.benchmark.get("_target_")).endswith(".no_benchmark")
    if qrels and has_benchmark:
        raise UserError(
            f"task.qrels={qrels}: a benchmark has judgements of its own (one of the two). Fix: "
            "leave out task.qrels or benchmark=..."
        )
    if qrels:
        return judgements_benchmark(qrels, remove_self_match=remove_self_match)
    if remove_self_match:
        raise UserError(
            "task.remove_self_match=true: has no effect without task.qrels (a benchmark says it). "
            "Fix: benchmark.remove_self_match=true, or leave it out."
        )
    benchmark: Benchmark | None = build(config.benchmark)
    if benchmark is None:
        raise UserError(
            "task=score: nothing says what is relevant (a benchmark, or judgements). Fix: "
            "benchmark=folder benchmark.path=DIR, another benchmark, or task.qrels=FILE."
        )
    return benchmark


def _score_into(
    config: DictConfig,
    scored: Callable[[], tuple[list[Report], GivenScores]],
    evaluator: Evaluator,
    meter: CostMeter,
) -> list[Report]:
    """Score, write and show everything; return the reports with confidence intervals.

    Parts that an evaluation does not have go to score.json and to the end of report.md. A logger
    that cannot start is known before the work, and run files that cannot be scored leave nothing.

    Args:
        scored: does the work.
    """
    main = evaluator.measures[0]
    with (
        begun_run(config.paths.run_dir) as run,
        removes_failed_start(run) as begins,
        logs_to(run.log),
    ):
        record_start(config, run, contract=None)
        identity = identity_of(config, run, job_type="evaluate", has_model=False)
        with opened_loggers(
            config.logger,
            identity=identity,
            hyperparameters=partial(stored_hyperparameters, run),
        ) as loggers:
            reports, scores = scored()
            begins()
            _log_scores(scores, evaluator)
            log_report(loggers, reports[0], evaluator=evaluator)
            known = write_and_draw(reports, evaluator, run, compared=None)
            write_json(run.path / SCORE_FILE, scores.as_document())
            page = run.path / REPORT_FILE
            write_text(page, page.read_text(encoding="utf-8") + "\n" + given_sections(scores))
            summary = summary_of(known, of=known[0].retriever, cost=meter.cost())
            write_summary(summary, known, run, loggers)
        show(
            terminal_table(known, measures=evaluator.measures),
            *([terminal_tests(scores)] if scores.tests else []),
            f"Run directory: {run.path}",
            result_line=result_line(known, main),
        )
    return known


def _log_scores(scores: GivenScores, evaluator: Evaluator) -> None:
    """Log the runs' coverage, and which rules and sets the numbers leave out."""
    for ranking in scores.rankings:
        found = ranking.coverage
        logger.info(
            "%s: %s, %d of %d judged queries of %s; %d queries without judgements",
            ranking.system, ranking.file.path, found.num_answered, found.num_judged,
            ranking.file.set_name, found.num_unjudged,
        )  # fmt: skip
    for line in given_remarks(scores):
        logger.warning("%s", line)
    is_cut = evaluator.top_k < sys.maxsize
    logger.info(
        "convention=%s: its rule for titles has no effect, for rankings are given; each counts %s",
        evaluator.convention.name,
        f"to evaluation.top_k={evaluator.top_k}" if is_cut else "in full",
    )
    scored = {ranking.file.set_name for ranking in scores.rankings}
    left = [each.name for each in evaluator.benchmark.sets if each.name not in scored]
    if left:
        logger.info("sets without a run: %s", ", ".join(left))
