"""Group runs into the rows of a study's tables; runs that differ only in the seed share a row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isclose
from pathlib import Path

from quarry.errors import UserError
from quarry.evaluation.run_cost import RunCost
from quarry.study_report.measured import Measured
from quarry.study_report.run_record import LearningCurve, RunRecord
from quarry.study_report.settings import (
    EXPERIMENT,
    Stage,
    distinguishing,
    setting_value,
    short_values,
    shortened,
)
from quarry.types import SetResult

Seed = str | None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Row of a table: a model or a baseline, under one configuration.

    Attributes:
        label: name in tables, unique within its stage.
        name: name of the model or baseline alone.
        variant: the part of the label on its configuration; empty if the name is enough.
        stage: kind of retriever in the study.
        members: its measurements, from one or more run directories.
        results: seed -> set -> result.
        failures: seed -> set -> why there is no result.
        unfinished: seed -> why there are no results at all.
        remarks: sentences on values that were measured more than once.
    """

    label: str
    name: str
    variant: str
    stage: Stage
    members: tuple[Measured, ...]
    results: Mapping[Seed, Mapping[str, SetResult]]
    failures: Mapping[Seed, Mapping[str, str]]
    unfinished: Mapping[Seed, str]
    remarks: tuple[str, ...]

    @property
    def seeds(self) -> list[Seed]:
        return list(dict.fromkeys(member.seed for member in self.members))

    @property
    def directories(self) -> list[Path]:
        return list(dict.fromkeys(member.record.directory for member in self.members))

    def result(self, seed: Seed, set_name: str) -> SetResult | None:
        return self.results.get(seed, {}).get(set_name)

    def any_result(self, set_name: str) -> SetResult | None:
        """Return the result on a set of the first seed that has one."""
        found = (self.result(seed, set_name) for seed in self.seeds)
        return next((result for result in found if result is not None), None)

    @property
    def training_costs(self) -> list[RunCost]:
        """Return the costs of the training runs of its models."""
        return [run.cost for run in self._trainings if run.cost is not None]

    @property
    def curves(self) -> dict[Path, LearningCurve]:
        """Return run directory -> learning curve, of the training runs of its models."""
        return {run.directory: run.curve for run in self._trainings if run.curve is not None}

    @property
    def _trainings(self) -> list[RunRecord]:
        if self.stage != "supervised":
            return []
        return list({m.origin.directory: m.origin for m in self.members}.values())


def entries_of(
    measured: Sequence[Measured], *, order: Sequence[str] = (), labels: Mapping[str, str]
) -> list[Entry]:
    """Return one entry for each configuration: baselines, then given rankings, then models.

    Args:
        order: names of models in the order to show them; others follow in the order of the runs.
        labels: label -> label to show in its place.

    Raises:
        UserError: a label does not exist, or two rows would have the same one.
    """
    groups: dict[tuple[Stage, str, frozenset], list[Measured]] = {}
    for each in measured:
        key = (each.stage, each.name, frozenset(each.settings.items()))
        groups.setdefault(key, []).append(each)
    places = {name: place for place, name in enumerate(order)}
    entries = [_entry(members) for members in groups.values()]
    entries.sort(key=lambda entry: places.get(entry.members[0].model, len(places)))
    stages: tuple[Stage, ...] = ("baseline", "given", "zero_shot", "supervised")
    labelled = []
    for stage in stages:
        labelled += _labelled([entry for entry in entries if entry.stage == stage])
    return _renamed(labelled, labels)


def _entry(members: Sequence[Measured]) -> Entry:
    results: dict[Seed, dict[str, SetResult]] = {}
    sources: dict[tuple[Seed, str], Path] = {}
    failures: dict[Seed, dict[str, str]] = {}
    remarks: list[str] = []
    for member in members:
        by_set = results.setdefault(member.seed, {})
        for result in member.report.results:
            known = by_set.get(result.name)
            first = sources.setdefault((member.seed, result.name), member.record.directory)
            if known is not None and _differ(known, result):
                remarks.append(_twice(known, result, first, member.record.directory))
            else:
                by_set[result.name] = result if known is None else _joined(known, result)
        failures.setdefault(member.seed, {}).update(member.report.failures)
    for seed, by_set in results.items():
        failures[seed] = {k: v for k, v in failures[seed].items() if k not in by_set}
    unfinished = {m.seed: m.record.problem for m in members if m.record.problem is not None}
    return Entry(
        label=members[0].name,
        name=members[0].name,
        variant="",
        stage=members[0].stage,
        members=tuple(members),
        results=results,
        failures=failures,
        unfinished={seed: why for seed, why in unfinished.items() if not results[seed]},
        remarks=tuple(remarks),
    )


def _differ(known: SetResult, other: SetResult) -> bool:
    shared = [measure for measure in known.metrics if measure in other.metrics]
    return any(not isclose(known.metrics[m], other.metrics[m], abs_tol=1e-9) for m in shared)


def _joined(known: SetResult, other: SetResult) -> SetResult:
    """Return a result with the measures of both; `known` wins where both have one."""
    return replace(
        known,
        metrics={**other.metrics, **known.metrics},
        per_query={**other.per_query, **known.per_query},
    )


def _twice(known: SetResult, other: SetResult, first: Path, second: Path) -> str:
    shared = [measure for measure in known.metrics if measure in other.metrics]
    pairs = ", ".join(f"{m} {known.metrics[m]:.6f} and {other.metrics[m]:.6f}" for m in shared)
    return (
        f"{known.name} was measured twice under the same settings ({pairs}): shown is {first}, "
        f"not {second}"
    )


def _labelled(entries: Sequence[Entry]) -> list[Entry]:
    """Return entries of a stage with labels that tell them apart, by the same keys for all."""
    sizes = {entry.members[0].size for entry in entries} - {None}
    names = [
        f"{entry.name} {size}" if len(sizes) > 1 and (size := entry.members[0].size) else entry.name
        for entry in entries
    ]
    keys: dict[str, None] = {}
    for name in dict.fromkeys(names):
        rows = [entry for entry, other in zip(entries, names, strict=True) if other == name]
        same, options = [row.members[0] for row in rows], [_common_options(row) for row in rows]
        found = distinguishing([m.settings for m in same], options)
        keys |= dict.fromkeys(found)
    short = shortened(list(keys))
    firsts = [entry.members[0] for entry in entries]
    values = {
        key: [setting_value(first.settings, first.options, key) for first in firsts] for key in keys
    }
    shown = {key: short_values(found) for key, found in values.items()}
    labelled = []
    for row, (entry, name) in enumerate(zip(entries, names, strict=True)):
        words = [f"{short[key]}={shown[key][values[key][row]]}" for key in keys]
        variant = ", ".join(words)
        label = ", ".join([name, *words])
        labelled.append(replace(entry, label=label, variant=variant))
    return labelled


def _common_options(entry: Entry) -> dict[str, str]:
    """Return the options of its first member, without an experiment that not all have."""
    options = dict(entry.members[0].options)
    if len({member.options.get(EXPERIMENT) for member in entry.members}) > 1:
        options.pop(EXPERIMENT, None)
    return options


def _renamed(entries: Sequence[Entry], labels: Mapping[str, str]) -> list[Entry]:
    known = list(dict.fromkeys(entry.label for entry in entries))
    unknown = [label for label in labels if label not in known]
    if unknown:
        raise UserError(
            f"task.labels: there is no row {', '.join(map(repr, unknown))} (there are "
            f"{', '.join(map(repr, known))})."
        )
    renamed = [replace(entry, label=labels.get(entry.label, entry.label)) for entry in entries]
    counts = Counter((entry.stage, entry.label) for entry in renamed)
    twice = [label for (_, label), number in counts.items() if number > 1]
    if twice:
        raise UserError(
            f"task.labels: {', '.join(map(repr, twice))} would name two rows. Fix: give each its "
            "own."
        )
    return renamed
