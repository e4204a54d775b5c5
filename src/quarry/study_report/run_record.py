"""What a run directory says of itself: how it was set, what was measured, what it took."""

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
"""Between a stored mean and that of the stored values per query: the order of a sum."""


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """(step, value) of evaluations: the mean over the sets by the main measure."""

    measure: str
    sets: tuple[str, ...]
    evaluations: tuple[tuple[int, float], ...]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run directory, read.

    Attributes:
        directory: where it is.
        settings: the resolved configuration.
        options: which option fills which part of it.
        reports: with values per query; none if the run did not come that far.
        cost: of a run that came to its end.
        curve: of a training run that left it.
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
        """What the run was to measure, the main one first."""
        return list(json.loads(self.settings.get("evaluation.measures", "[]")))

    @property
    def benchmark_sets(self) -> list[str]:
        """Sets and groups that the run was to measure, where its configuration names them."""
        keys = ("benchmark.sets", "benchmark.members")
        named = (json.loads(self.settings.get(key, "null")) for key in keys)
        return next((list(names) for names in named if isinstance(names, list)), [])

    def setting(self, key: str) -> str | None:
        """A text or number as it reads; None for null or nothing."""
        value = json.loads(self.settings.get(key, "null"))
        return None if value is None else str(value)


def read_record(directory: Path, *, problem: str | None = None) -> RunRecord:
    """Reads a run directory.

    Args:
        problem: why it has no results; they are not looked for then.

    Raises:
        UserError: a file is not what a run writes, or values per query do not have the mean that
            `metrics.json` states.
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
            f"({type(error).__name__}: {error}). Leave the directory out of runs, or restore it."
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
    """The result with its values per query; without, if the file is gone."""
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
                f"{result.metrics[measure]:.6f}: one of the two was changed since. Evaluate again, "
                "or leave the directory out of runs."
            )
    return replace(result, per_query=per_query)
