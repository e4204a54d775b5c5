"""Score the run files of an earlier run under all conventions, without a model."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace

from omegaconf import DictConfig, OmegaConf

from quarry.config.instantiate import build
from quarry.config.overrides import named_run_directory, refuse_other_overrides
from quarry.config.stored import read_stored_config
from quarry.config.validation import signature_violations
from quarry.errors import MissingPathError, UserError
from quarry.evaluation.benchmark import Benchmark, BenchmarkSet
from quarry.evaluation.convention import Convention, Rules, recorded_rules
from quarry.evaluation.given_rankings import SCORING
from quarry.evaluation.rescoring import Rescored, rescore_run
from quarry.evaluation.rescoring_report import (
    AS_RUN,
    RescoredSet,
    Rescoring,
    by_convention,
    markdown_rescoring,
    mean_over_sets,
    measures_of,
    rescoring_document,
    terminal_rescoring,
)
from quarry.evaluation.run_directory_files import read_reports, run_path, safe_name
from quarry.evaluation.tables import printable
from quarry.metrics.run_files import read_run
from quarry.runtime.files import write_json, write_text
from quarry.runtime.logging import quiet_libraries
from quarry.runtime.own_command import own_command
from quarry.runtime.ownership import owned
from quarry.runtime.run_directory import RunDirectory
from quarry.runtime.task_output import show
from quarry.types import Report, SetResult

logger = logging.getLogger(__name__)

TOLERANCE = 1e-9
"""Allowed difference of a stored number and the recomputed one: summation order."""


def rescore(config: DictConfig, *, conventions: Mapping[str, Convention]) -> dict[str, float]:
    """Rescore `run=DIR`; write rescore.md and rescore.json there, or into hydra.run.dir.

    Args:
        conventions: name -> convention, in the order to show them.

    Returns:
        `rescore/<retriever>/<set>/<convention>/<measure>` -> value.

    Raises:
        UserError: there are no run files, one has a malformed line, or the benchmark differs from
            the run's.
    """
    quiet_libraries()
    refuse_other_overrides(
        ("task", "run", "hydra", "benchmark", "paths.cache_dir"),
        why="has no effect on task=rescore: all conventions are compared with the rules that the "
        "run was made under. Leave it out; benchmark=... can say where the sets lie now.",
    )
    run = RunDirectory.open(config.run)
    stored = read_stored_config(run.resolved_config)
    _refuse_given(stored, run)
    reports = _with_runs(run, measures=OmegaConf.select(stored, "evaluation.measures") or [])
    sets = {entry.name: entry for entry in _benchmark(config, stored, run).sets}
    rescoring: dict[str, list[RescoredSet]] = {}
    for report in reports:
        for result in report.results:
            if result.name in sets:
                found = _rescore(run, report.retriever, result, sets[result.name], conventions)
                rescored = RescoredSet(result=result, found=found)
                rescoring.setdefault(report.retriever, []).append(rescored)
    if not rescoring:
        names = dict.fromkeys(result.name for report in reports for result in report.results)
        raise UserError(
            f"None of the sets of the benchmark ({', '.join(sets)}) is one that {run.path} has a "
            f"run of ({', '.join(names)})."
        )
    folder = named_run_directory(config) or run.path
    folder.mkdir(parents=True, exist_ok=True)
    with owned(run.path) if folder == run.path else nullcontext():
        write_text(folder / "rescore.md", markdown_rescoring(rescoring))
        write_json(folder / "rescore.json", rescoring_document(rescoring))
    show(
        *terminal_rescoring(rescoring),
        f"In full: {folder / 'rescore.md'}",
        result_line=_result_line(rescoring),
    )
    return _summary(rescoring)


def _refuse_given(stored: DictConfig, run: RunDirectory) -> None:
    if OmegaConf.select(stored, "task._target_") == SCORING:
        raise UserError(
            f"run={run.path}: its rankings were read from run files (only runs of evaluations can "
            f"be rescored). Fix: {own_command('eval')} task=score task.runs=... convention=NAME."
        )


def _with_runs(run: RunDirectory, *, measures: Sequence[str]) -> list[Report]:
    """Return the stored reports, measures in this order, without results that lack a run file."""
    reports, missing = [], []
    for report in read_reports(run.path):
        paths = {
            result.name: run_path(run.path, set_name=result.name, retriever=report.retriever)
            for result in report.results
        }
        missing += [path for path in paths.values() if not path.is_file()]
        found = tuple(
            replace(result, metrics=_ordered(result.metrics, measures))
            for result in report.results
            if paths[result.name].is_file()
        )
        reports.append(Report(retriever=report.retriever, results=found))
    if not any(report.results for report in reports):
        raise MissingPathError(
            f"run={run.path} has no runs: runs/ holds none of the {len(missing)} rankings that "
            "metrics.json speaks of, and they are what task=rescore scores. Restore the folder, "
            "or evaluate again."
        )
    if missing:
        logger.warning("left out, for there is no such file: %s", ", ".join(map(str, missing)))
    return reports


def _ordered(metrics: Mapping[str, float], measures: Sequence[str]) -> dict[str, float]:
    names = [*(name for name in measures if name in metrics), *metrics]
    return {name: metrics[name] for name in dict.fromkeys(names)}


def _benchmark(config: DictConfig, stored: DictConfig, run: RunDirectory) -> Benchmark:
    """Return the run's benchmark with the command line's changes, or another one given there."""
    node = config.benchmark
    if "_target_" not in node:
        if "benchmark" not in stored or "_target_" not in stored.benchmark:
            raise UserError(f"{run.resolved_config} names no benchmark: give it, benchmark=NAME.")
        given = {key: value for key, value in node.items() if value is not None}
        if "cache_dir" in stored.benchmark:  # the stored path may belong to another machine
            given["cache_dir"] = config.paths.cache_dir
        node = OmegaConf.create({**stored.benchmark, **given})
    violations = list(signature_violations(node, "benchmark"))
    if violations:
        raise UserError("\n".join(violations))
    benchmark: Benchmark | None = build(node)
    if benchmark is None:
        raise UserError("benchmark=none has no judgements to score with: choose another.")
    return benchmark


def _rescore(
    run: RunDirectory,
    retriever: str,
    result: SetResult,
    benchmark_set: BenchmarkSet,
    conventions: Mapping[str, Convention],
) -> Rescored:
    path = run_path(run.path, set_name=result.name, retriever=retriever)
    own, top_k = _own_rules(result, run)
    found = rescore_run(
        read_run(path),
        benchmark_set,
        own=own,
        conventions=conventions,
        measures=list(result.metrics),
        top_k=top_k,
    )
    for measure, value in found.as_run.items():
        if not math.isclose(value, result.metrics[measure], abs_tol=TOLERANCE):
            logger.warning(
                "%s on %s: %s is %.5f by the run file and the judgements, and %.5f in "
                "metrics.json: one of the three was changed since",
                retriever, printable(result.name), measure, value, result.metrics[measure],
            )  # fmt: skip
    return found


def _own_rules(result: SetResult, run: RunDirectory) -> tuple[Rules, int]:
    try:
        return recorded_rules(result.convention), int(str(result.convention["top_k"]))
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{run.metrics} does not say under which rules {result.name} was evaluated ({error} is "
            "missing or wrong): it was written by another version. Evaluate again."
        ) from error


def _result_line(rescoring: Rescoring) -> str:
    """Return the means over all sets, for each retriever and each applicable convention."""
    measure = measures_of(next(iter(rescoring.values())))[0]
    parts = [measure]
    for retriever, sets in rescoring.items():
        prefix = f"{safe_name(retriever)}/" if len(rescoring) > 1 else ""
        for report in by_convention(sets):
            mean = mean_over_sets(report, len(sets), measure)
            if mean is not None:
                parts.append(f"{prefix}{safe_name(report.retriever)}={mean:.4f}")
    return " ".join(parts)


def _summary(rescoring: Rescoring) -> dict[str, float]:
    return {
        f"rescore/{retriever}/{entry.result.name}/{name}/{measure}": value
        for retriever, sets in rescoring.items()
        for entry in sets
        for name, means in {AS_RUN: entry.found.as_run, **entry.found.by_convention}.items()
        if means is not None
        for measure, value in means.items()
    }
