"""The reports of a training run: of a baseline, of the model before and after and at its best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from omegaconf import DictConfig

from quarry.assembly.evaluation_parts import build_baseline
from quarry.distributed import world
from quarry.evaluation.evaluator import Evaluator
from quarry.evaluation.plots import plot_bars, plot_learning_curve
from quarry.evaluation.report import result_line, terminal_table, write_report
from quarry.evaluation.run_directory_files import read_reports, run_path
from quarry.evaluation.scatter import plot_scatter
from quarry.metrics.run_files import read_run
from quarry.retrieval.fusion import reciprocal_rank_fusion
from quarry.runtime.files import write_json
from quarry.runtime.run_directory import RunDirectory
from quarry.runtime.task_output import show
from quarry.training.callbacks.loss_history import LossHistory
from quarry.training.callbacks.retrieval_evaluation import UNTRAINED, RetrievalEvaluation
from quarry.training.evaluation_log import metric_values
from quarry.types import Report

TRAINED, BEST = "trained", "best"


def first_reports(
    config: DictConfig, evaluator: Evaluator, run: RunDirectory, *, is_resumed: bool
) -> list[Report]:
    """Return the baseline's report, if there is one, and in a resumed run the untrained model's.

    `evaluation.before_training=false` leaves the second one out. Of several ranks the first one
    alone has the baseline.
    """
    reports: list[Report] = []
    baseline = build_baseline(config, beside=TRAINED)
    if baseline is not None and world.is_launched_first():
        keep_report(evaluator.evaluate(baseline), reports, run)
    if is_resumed and config.evaluation.before_training:
        reports.append(stored_report(evaluator, run, UNTRAINED))
    return reports


def keep_report(report: Report, reports: list[Report], run: RunDirectory) -> None:
    """Notes a report, and writes it now: a run that is killed must find it again."""
    reports.append(report)
    if world.is_launched_first():
        write_report([report], run.path, merge=True)


def stored_report(evaluator: Evaluator, run: RunDirectory, name: str) -> Report:
    """The report of that name, scored anew from the run files of an earlier process."""
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
    """The report of that name, None if there is none."""
    return next((report for report in reports if report.retriever == name), None)


def last_reports(
    evaluator: Evaluator, run: RunDirectory, reports: Sequence[Report], *, has_best: bool
) -> list[Report]:
    """What is known only at the end: the best model's, and of baseline and trained together."""
    found = []
    if has_best:
        found.append(stored_report(evaluator, run, BEST))
    if reports[0].retriever not in (UNTRAINED, TRAINED):  # a baseline comes first
        found.append(hybrid_report(evaluator, reports))
    return found


def hybrid_report(evaluator: Evaluator, reports: Sequence[Report]) -> Report:
    """The first (the baseline) and the last (the trained model), fused by reciprocal rank.

    Their rankings are without self matches, and `retriever=hybrid` gives the same numbers.
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
    """Report, plots and the result line; returns `<retriever>/<set>/<measure>` -> value.

    Args:
        best: what to say of the best model.
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
    """The points of the learning curve, for reports over several runs."""
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
    """The pictures in `plots/`.

    Args:
        known: the reports with intervals.
    """
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
    """Where to find a model that nobody measured; returns the training loss of its last update."""
    summary = {} if last_loss is None else {"train/loss": last_loss}
    shown = "unknown" if last_loss is None else f"{last_loss:.4f}"
    if world.is_launched_first():
        show(f"Run directory: {run.path}", result_line=f"loss={shown}")
    return summary
