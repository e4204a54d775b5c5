"""Read published results of other systems from `published/`, and fit them to tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from quarry.errors import UserError
from quarry.study_report.entries import Entry
from quarry.study_report.settings import WITHOUT_MODEL, Stage
from quarry.study_report.suites import OTHER, Column, Suite

FOLDER = Path(__file__).resolve().parent / "published"


@dataclass(frozen=True, kw_only=True)
class PublishedValue:
    """A published number, scaled to 0 to 1.

    Attributes:
        value: the number.
        text: the number with the digits that its source gives.
    """

    value: float
    text: str


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """Published results of one system.

    Attributes:
        label: label of the system.
        source: publication with the numbers.
        confidence: how certain it is that the source has these numbers.
        note: notes for readers, a sentence or more.
        stages: kinds of tables that the row fits in.
        values: set or group -> measure -> number.
        rules: set -> measure -> rule of a convention -> value required for a fair comparison.
    """

    label: str
    source: str
    confidence: str
    note: str
    stages: tuple[Stage, ...]
    values: Mapping[str, Mapping[str, PublishedValue]]
    rules: Mapping[str, Mapping[str, Mapping[str, Any]]]


def read_published(names: Sequence[str] | None) -> list[PublishedRow]:
    """Read the rows of the named files; of all files for None.

    Raises:
        UserError: a file does not exist.
    """
    files = {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}
    unknown = [name for name in names or () if name not in files]
    if unknown:
        raise UserError(
            f"task.published: there is no {', '.join(unknown)} (allowed: {', '.join(files)})."
        )
    chosen = files if names is None else {name: files[name] for name in names}
    return [row for path in chosen.values() for row in rows_of_file(path)]


def rows_of_file(path: Path) -> list[PublishedRow]:
    """Read the rows of one file; keys of its head apply to rows that do not set them."""
    head = yaml.safe_load(path.read_text(encoding="utf-8"))
    notes = [head.get("note", "")]
    return [
        PublishedRow(
            label=row["label"],
            source=row.get("source", head["source"]),
            confidence=row.get("confidence", head["confidence"]),
            note=" ".join(_sentence(note) for note in (*notes, row.get("note", "")) if note),
            stages=tuple(row.get("stages", head["stages"])),
            values={
                name: {m: published_value(text, head["unit"]) for m, text in measures.items()}
                for name, measures in row["values"].items()
            },
            rules=head.get("rules", {}),
        )
        for row in head["rows"]
    ]


def published_value(text: str, unit: str) -> PublishedValue:
    """Scale a number to 0 to 1 without changing its digits: `42.0` in percent is 0.420."""
    number = Decimal(text).scaleb(-2) if unit == "percent" else Decimal(text)
    return PublishedValue(value=float(number), text=f"{number:f}")


def fitting(
    rows: Sequence[PublishedRow],
    *,
    stage: Stage,
    suite: Suite,
    columns: Sequence[Column],
    entries: Sequence[Entry],
) -> list[tuple[PublishedRow, list[PublishedValue | None]]]:
    """Return the rows with a number for some column, with a number or None for each column.

    A number fits a column if the set is the public one, the measure is the same, and the column's
    results follow the rules that it requires. Tables without models count as zero-shot tables.
    """
    if suite is OTHER:
        return []
    wanted = "zero_shot" if stage in WITHOUT_MODEL else stage
    found = []
    for row in rows:
        values = [_value(row, column, suite, entries) for column in columns]
        if wanted in row.stages and any(value is not None for value in values):
            found.append((row, values))
    return found


def _value(
    row: PublishedRow, column: Column, suite: Suite, entries: Sequence[Entry]
) -> PublishedValue | None:
    name, measure = column.row.name, column.measure
    if not all(_has_rules(row, set_name, measure, entries) for set_name in column.row.sets):
        return None
    if not column.row.is_group:
        return row.values.get(name, {}).get(measure)
    members = [one.name for one in suite.sets if one.group == name]
    if sorted(members) != sorted(column.row.sets):
        return None  # the column has only some sets of the group
    if measure in row.values.get(name, {}):
        return row.values[name][measure]
    parts = [row.values.get(member, {}).get(measure) for member in members]
    present = [part for part in parts if part is not None]
    if len(present) < len(members):
        return None
    mean, digits = fmean(part.value for part in present), len(present[0].text.partition(".")[2])
    return PublishedValue(value=mean, text=f"{mean:.{digits}f}")


def _has_rules(row: PublishedRow, set_name: str, measure: str, entries: Sequence[Entry]) -> bool:
    asked = row.rules.get(set_name, {}).get(measure, {})
    results = [entry.any_result(set_name) for entry in entries]
    convention = next((result.convention for result in results if result is not None), {})
    return all(convention.get(key) == value for key, value in asked.items())


def _sentence(note: str) -> str:
    text = note[0].upper() + note[1:]
    return text if text.endswith(".") else f"{text}."
