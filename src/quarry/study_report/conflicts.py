"""Refuse tables whose columns mix scoring rules, versions of a set, or sets of queries."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from quarry.errors import UserError
from quarry.metrics.trec import parse_measure
from quarry.runtime.own_command import own_command
from quarry.study_report.entries import Entry
from quarry.study_report.measured import Measured
from quarry.study_report.suites import Column
from quarry.types import SetResult

SOURCE = ("repo", "revision", "qrels_repo", "qrels_revision", "subset", "split")
"""Keys below `benchmark.` that determine which version of a set was read."""

VERSIONED = re.compile(r"@|Python \d")
"""Matches sources that name a commit or release; a folder's source is only its name."""

MAX_NAMED = 4


def refuse_conflicts(entries: Sequence[Entry], columns: Sequence[Column]) -> None:
    """Check that the results of each column have the same data and scoring rules.

    The depth of the rankings (`top_k`) matters only for measures without a cutoff.

    Raises:
        UserError: some differ; the message names the differences, sets and directories.
    """
    lines = [line for column in columns for line in _conflicts(entries, column)]
    if lines:
        raise UserError(
            "Numbers of one column would not be comparable:\n"
            + "\n".join(f"- {line}" for line in dict.fromkeys(lines))
            + "\nFix: report comparable runs only (runs=[DIR,...]), leave these sets out "
            f"(task.sets=[...]), or use one convention: {own_command('eval')} task=rescore run=DIR "
            "shows a run under other conventions, an evaluation with convention=NAME stores it."
        )


def _conflicts(entries: Sequence[Entry], column: Column) -> Iterator[str]:
    for set_name in column.row.sets:
        measured = [
            (member, result)
            for entry in entries
            for member in entry.members
            for result in member.report.results
            if result.name == set_name and column.measure in result.metrics
        ]
        facts = [_facts(member, result, column.measure) for member, result in measured]
        for key in dict.fromkeys(key for each in facts for key in each):
            places: dict[str, list[str]] = {}
            for (member, _), found in zip(measured, facts, strict=True):
                if key in found:
                    directory = str(member.record.directory)
                    places.setdefault(str(found[key]), []).append(directory)
            if len(places) > 1:
                yield f"{set_name}: {key} is " + ", but ".join(
                    f"{value} in {_named(directories)}" for value, directories in places.items()
                )
        yield from _other_queries(measured, set_name, column.measure)


def _facts(member: Measured, result: SetResult, measure: str) -> dict[str, Any]:
    facts: dict[str, Any] = {"num_queries": result.num_queries, "group": result.group}
    if result.num_documents:  # 0: judgements alone, the corpus is not known
        facts["num_documents"] = result.num_documents
    rules = dict(result.convention)
    if member.stage == "given":  # whether titles were encoded is unknown
        rules = {key: value for key, value in rules.items() if key not in ("title", "title_rule")}
    depth, cut = rules.pop("top_k", None), parse_measure(measure).k
    if cut is None:  # the measure depends on the full ranking
        facts["evaluation.top_k"] = depth
    facts |= {f"convention {key}": value for key, value in rules.items()}
    for key in SOURCE:
        value = member.record.setting(f"benchmark.{key}")
        if value is not None:
            facts[f"benchmark.{key}"] = value
    if result.source is not None and VERSIONED.search(result.source):
        facts["source"] = result.source  # the version that was read, also if no commit was set
    return facts


def _other_queries(
    measured: Sequence[tuple[Measured, SetResult]], set_name: str, measure: str
) -> Iterator[str]:
    """Yield a line if results that have a value for every judged query differ in their queries."""
    known: tuple[Mapping[str, float], Measured] | None = None
    for member, result in measured:
        values = result.per_query.get(measure, {})
        if not values or result.convention.get("missing_queries") == "left_out":
            continue
        if known is None:
            known = values, member
        elif values.keys() != known[0].keys():
            only = sorted(values.keys() ^ known[0].keys())
            yield (
                f"{set_name}: {member.record.directory} and {known[1].record.directory} have "
                f"different queries ({len(only)} are in one alone, such as {only[0]}): versions of "
                "the set differ"
            )
            return


def _named(directories: Sequence[str]) -> str:
    unique = list(dict.fromkeys(directories))
    shown = ", ".join(unique[:MAX_NAMED])
    return shown if len(unique) <= MAX_NAMED else f"{shown} and {len(unique) - MAX_NAMED} more"
