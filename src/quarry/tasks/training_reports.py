"""Collect and show the reports of a training run: baseline, untrained, trained, best, hybrid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from quarry.distributed import world
from quarry.evaluation.evaluator import Evaluator
from quarry.evaluation.plots import plot_bars, plot_learning_curve
from quarry.evaluation.report import result_line, terminal_table, write_report
from quarry.evaluation.run_directory_files import read_reports, run_path
from quarry.evaluation.scatter import plot_scatter
from quarry.metrics.run_files import read_run
from quarry.retrieval.fusion import reciprocal_rank_fusion
from quarry.retrieval.retriever import Retriever
from quarry.runtime.extras import can_draw
from quarry.runtime.files import write_json
from quarry.runtime.run_directory import RunDirectory
from quarry.runtime.task_output import show
from quarry.training.callbacks.loss_history import LossHistory
from quarry.training.callbacks.retrieval_evaluation import UNTRAINED, RetrievalEvaluation
from quarry.training.evaluation_log import metric_values
from quarry.types import Report

TRAINED, BEST = "trained", "best"


class TrainingReports:
    """The reports of a run so far, in order of evaluation.

    Each is written at once, so that a resumed run finds it.

    Args:
        run: where they are written, on rank 0.
        baseline: a retriever without a model, for comparison; None: there is none.
        before_training: the untrained model is evaluated, too.

    Attributes:
        made: the reports so far; the baseline's only on rank 0.
    """

    def __init__(
        self,
        *,
        evaluator: Evaluator,
        run: RunDirectory,
        baseline: Retriever | None,
        before_training: bool,
    ) -> None:
        self._evaluator = evaluator
        self._run = run
        self._baseline = baseline
        self._before_training = before_training
        self.made: list[Report] = []

    def begin(self, *, is_resumed: bool) -> None:
        """Evaluate the baseline.

        In a resumed run, also read the stored report of the untrained model.
        """
        if self._baseline is not None and world.is_launched_first():
            self.add(self._evaluator.evaluate(self._baseline))
        if is_resumed and self._before_training:
            self.made.append(stored_report(self._evaluator, self._run, UNTRAINED))

    def add(self, report: Report) -> None:
        """Append a report and write it."""
        self.made.append(report)
        self.write(report)

    def write(self, report: Report) -> None:
        """Write a report into the run directory, in place of one of that name; rank 0 writes."""
        if world.is_launched_first():
            measures = self._evaluator.measures
            write_report([report], self._run.path, measures=measures, merge=True)

    def end(self, *, has_best: bool) -> None:
        """Append the reports that exist only at the end, see `last_reports`."""
        self.made += last_reports(self._evaluator, self._run, self.made, has_best=has_best)

    def baseline(self) -> Report | None:
        """Return the baseline's report, None where there is none (yet)."""
        is_first = bool(self.made) and self.made[0].retriever not in (UNTRAINED, TRAINED)
        return self.made[0] if is_first else None


def stored_report(evaluator: Evaluator, run: RunDirectory, name: str) -> Report:
    """Return the report of that name, scored again from its stored run files."""
    stored = [report for report in read_reports(run.path) if report.retriever == name]
    failures = {set_name: why for each in stored for set_name, why in each.failures.items()}
    known = {result.name: result for each in stored for result in each.results}
    contract = next((each.contract for each in stored), {})
    caveats = next((each.training_caveats for each in stored), ())
    results = [
        replace(
            evaluator.score(read_run(run_path(run.path, set_name=s.name, retriever=name)), s),
            corpus_dtype=known[s.name].corpus_dtype if s.name in known else None,
            term_tokenizer=known[s.name].term_tokenizer if s.name in known else None,
        )
        for s in evaluator.benchmark.sets
        if s.name not in failures
    ]
    return Report(
        retriever=name,
        results=tuple(results),
        failures=failures,
        contract=contract,
        training_caveats=caveats,
    )


def named(reports: Sequence[Report], name: str) -> Report | None:
    """Return the report of that name, None if there is none."""
    return next((report for report in reports if report.retriever == name), None)


def last_reports(
    evaluator: Evaluator, run: RunDirectory, reports: Sequence[Report], *, has_best: bool
) -> list[Report]:
    """Return the reports that exist only at the end: of the best model and of the hybrid."""
    found = []
    if has_best:
        found.append(stored_report(evaluator, run, BEST))
    if reports[0].retriever not in (UNTRAINED, TRAINED):  # a baseline comes first
        found.append(hybrid_report(evaluator, reports))
    return found


def hybrid_report(evaluator: Evaluator, reports: Sequence[Report]) -> Report:
    """Return the fusion by reciprocal rank of the baseline (first) and the trained model (last).

    Self matches are removed from their rankings. `retriever=hybrid` gives the same numbers.
    """
    sparse, dense = (
        {r.name: r.run for r in report.results} for report in (reports[0], reports[-1])
    )
    fuse = partial(reciprocal_rank_fusion, top_k=evaluator.top_k, ties=evaluator.convention.ties)
    dtypes = {result.name: result.corpus_dtype for result in reports[-1].results}
    tokenizers = {result.name: result.term_tokenizer for result in reports[0].results}
    results = [
        replace(
            evaluator.score(fuse([sparse[s.name], dense[s.name]]), s),
            corpus_dtype=dtypes[s.name],
            term_tokenizer=tokenizers[s.name],
        )
        for s in evaluator.benchmark.sets
        if s.name in sparse and s.name in dense
    ]
    failures = {**reports[0].failures, **reports[-1].failures}
    return Report(
        retriever="hybrid",
        results=tuple(results),
        failures=failures,
        contract=reports[-1].contract,
        training_caveats=reports[-1].training_caveats,
    )


def finish(
    reports: Sequence[Report],
    evaluator: Evaluator,
    evaluation: RetrievalEvaluation,
    losses: LossHistory,
    *,
    run: RunDirectory,
    best: str | None,
) -> dict[str, float]:
    """Write and show report, plots and result; return `<retriever>/<set>/<measure>` -> value.

    Args:
        best: a line about the best model, if one is saved.
    """
    known = write_report(reports, run.path, measures=evaluator.measures, merge=True)
    shown = [report for report in known if named(reports, report.retriever) is not None]
    draw(reports, shown, evaluator, evaluation, losses, run=run)
    write_learning_curve(run, evaluator, evaluation, losses)
    summary = {
        f"{report.retriever}/{key.removeprefix('val/')}": value
        for report in reports
        for key, value in metric_values(report).items()
    }
    show(
        terminal_table(reports, measures=evaluator.measures),
        *([] if best is None else [best]),
        f"Run directory: {run.path}",
        result_line=result_line(reports, evaluator.measures[0]),
    )
    return summary


def write_learning_curve(
    run: RunDirectory, evaluator: Evaluator, evaluation: RetrievalEvaluation, losses: LossHistory
) -> None:
    """Write the points of the learning curve, for reports over several runs."""
    document = {
        "measure": evaluator.measures[0],
        "sets": [benchmark_set.name for benchmark_set in evaluator.benchmark.sets],
        "evaluations": sorted(evaluation.history),
        "losses": [(step, loss) for step, loss in losses.points if math.isfinite(loss)],
    }
    write_json(run.learning_curve, document)


def draw(
    reports: Sequence[Report],
    known: Sequence[Report],
    evaluator: Evaluator,
    evaluation: RetrievalEvaluation,
    losses: LossHistory,
    *,
    run: RunDirectory,
) -> None:
    """Draw the plots of the run; without matplotlib, none.

    Args:
        known: the reports with confidence intervals.
    """
    if not can_draw():
        return
    main = evaluator.measures[0]
    plots = run.path / "plots"
    plot_bars(known, plots / "results.png", measures=evaluator.measures)
    first, trained = reports[0], named(reports, TRAINED)
    if trained is not None and first is not trained:
        plot_scatter(first, trained, plots / "queries.png", measure=main)
    if not evaluation.history:  # a set failed in each of them, so there is no mean
        return
    lines = [None if first is trained else first, named(reports, UNTRAINED)]
    plot_learning_curve(
        evaluation.history,
        plots / "learning_curve.png",
        baselines={r.retriever: r.mean(main) for r in lines if r is not None and not r.failures},
        losses=losses.points,
        measure=main,
    )


def finish_unevaluated(last_loss: float | None, *, run: RunDirectory) -> dict[str, float]:
    """Show the run directory and the last training loss, and return that loss."""
    summary = {} if last_loss is None else {"train/loss": last_loss}
    shown = "unknown" if last_loss is None else f"{last_loss:.4f}"
    if world.is_launched_first():
        show(f"Run directory: {run.path}", result_line=f"loss={shown}")
    return summary
