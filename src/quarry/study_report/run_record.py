"""Read a run directory: its configuration, results, cost and learning curve."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean

import yaml

from quarry.errors import UserError
from quarry.evaluation.run_cost import RunCost
from quarry.evaluation.run_directory_files import per_query_path, read_reports
from quarry.runtime.renamed_keys import with_renamed_keys
from quarry.runtime.run_directory import RunDirectory
from quarry.study_report.settings import Settings, flattened, placed
from quarry.types import Report, SetResult

TOLERANCE = 1e-9
"""Allowed difference of a stored mean from that of the per-query values: order of summation."""


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """Evaluations during training, by the mean of the main measure over the sets.

    Attributes:
        measure: the main measure.
        sets: names of the sets.
        evaluations: (optimizer step, value).
    """

    measure: str
    sets: tuple[str, ...]
    evaluations: tuple[tuple[int, float], ...]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Content of a run directory.

    Attributes:
        directory: path of the run directory.
        settings: the resolved configuration, flattened.
        options: part of the configuration -> chosen option (see `placed`).
        reports: reports with per-query values; none if the run has no results.
        cost: cost of a finished run; else None.
        curve: learning curve of a training run; None if it has none.
        problem: why there are no reports.
    """

    directory: Path
    settings: Settings
    options: Mapping[str, str] = field(default_factory=dict)
    reports: tuple[Report, ...] = ()
    cost: RunCost | None = None
    curve: LearningCurve | None = None
    problem: str | None = None

    @property
    def is_training(self) -> bool:
        return any(key.startswith("optimizer.") for key in self.settings)

    @property
    def measures(self) -> list[str]:
        """Return the configured measures of the run, the main one first."""
        return list(json.loads(self.settings.get("evaluation.measures", "[]")))

    @property
    def benchmark_sets(self) -> list[str]:
        """Return the sets and groups of the run's benchmark; empty if not configured by name."""
        keys = ("benchmark.sets", "benchmark.members")
        named = (json.loads(self.settings.get(key, "null")) for key in keys)
        return next((list(names) for names in named if isinstance(names, list)), [])

    @property
    def tags(self) -> list[str]:
        """Return the configured tags of the run."""
        return list(json.loads(self.settings.get("tags", "[]")))

    def setting(self, key: str) -> str | None:
        """Return the value of a key as text; None for null or a missing key."""
        value = json.loads(self.settings.get(key, "null"))
        return None if value is None else str(value)


def read_record(directory: Path, *, problem: str | None = None) -> RunRecord:
    """Read a run directory.

    Args:
        problem: why it has no results; results are then not read.

    Raises:
        UserError: a file is malformed, or the mean of per-query values is not that in
            `metrics.json`.
    """
    run = RunDirectory(directory)
    try:
        config = with_renamed_keys(yaml.safe_load(run.resolved_config.read_text(encoding="utf-8")))
        provenance = _json(run.provenance)
        summary, curve = _json(run.summary), _json(run.learning_curve)
        return RunRecord(
            directory=directory,
            settings=flattened(config),
            options=placed((provenance or {}).get("options", {})),
            reports=() if problem else tuple(_complete(r, run) for r in read_reports(directory)),
            cost=None if summary is None else RunCost.from_json(summary["cost"]),
            curve=None if curve is None else _curve(curve),
            problem=problem,
        )
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, yaml.YAMLError) as error:
        raise UserError(
            f"{directory}: a file of this run directory is not what a run writes "
            f"({type(error).__name__}: {error}). Fix: leave it out of runs, or restore it."
        ) from error


def _json(path: Path) -> dict | None:
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise TypeError(f"{path.name} holds no object")
    return found


def _curve(document: Mapping) -> LearningCurve:
    points = tuple((int(step), float(value)) for step, value in document["evaluations"])
    return LearningCurve(
        measure=str(document["measure"]), sets=tuple(document["sets"]), evaluations=points
    )


def _complete(report: Report, run: RunDirectory) -> Report:
    results = tuple(_with_values(result, report.retriever, run) for result in report.results)
    return replace(report, results=results)


def _with_values(result: SetResult, retriever: str, run: RunDirectory) -> SetResult:
    """Return the result with its per-query values; unchanged if their file does not exist."""
    path = per_query_path(run.path, set_name=result.name, retriever=retriever)
    if not path.is_file():
        return result
    per_query: dict[str, dict[str, float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        query_id = str(row.pop("query_id"))
        for measure, value in row.items():
            per_query.setdefault(measure, {})[query_id] = float(value)
    for measure, values in per_query.items():
        mean = fmean(values.values())
        if not math.isclose(mean, result.metrics.get(measure, mean), abs_tol=TOLERANCE):
            raise UserError(
                f"{path}: the mean of {measure} is {mean:.6f}, and {run.metrics.name} says "
                f"{result.metrics[measure]:.6f}: one of the two was changed since. Fix: evaluate "
                "again, or leave the directory out of runs."
            )
    return replace(result, per_query=per_query)
