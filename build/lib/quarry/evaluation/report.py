"""The end of the road: the reports of some retrievers as tables, one result line and a directory.

Tables show one set as retrievers by measures, and several sets as sets by retrievers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.cells import cell_len

from quarry.errors import UserError
from quarry.evaluation.run_directory_files import (
    safe_name,
    write_results,
    write_runs,
)
from quarry.runtime.files import write_text
from quarry.types import Report, SetResult

MEASURES = ("nDCG@10", "Recall@100", "MRR@10")
REPORT_FILE = "report.md"
NOT_MEASURED = "-"


def write_report(
    reports: Sequence[Report],
    directory: Path,
    *,
    measures: Sequence[str] = MEASURES,
    merge: bool = False,
) -> tuple[Report, ...]:
    """Write everything an evaluation leaves in its run directory but the plots.

    These are `metrics.json`, `per_query/`, `runs/` and `report.md`. Call it on rank 0 alone.

    Args:
        measures: what `report.md` shows, the main measure first.
        merge: keep what an older `metrics.json` says about other retrievers and sets.

    Returns:
        The reports that the directory now holds (see `write_results`), as `report.md` shows them.

    Raises:
        UserError: as `write_results`, `markdown_report` and `write_runs`, in that order.
    """
    merged = write_results(reports, directory, merge=merge)
    write_text(directory / REPORT_FILE, markdown_report(merged, measures=measures))
    write_runs(reports, directory)  # last: an id that no run file can hold must not cost the rest
    return merged


def result_line(reports: Sequence[Report], measure: str = "nDCG@10") -> str:
    """One line for logs and scripts: ``nDCG@10 name=0.1234 name=0.1234 ...``.

    The names are the sets when there is one retriever, else the retrievers; with several of both,
    the value is a retriever's unweighted mean over the sets. Names pass through `safe_name`.

    Raises:
        UserError: a retriever has no value of `measure` on one of the sets.
    """
    for report in reports:
        for name in set_names(reports):
            if value_of(report, name, measure) is None:
                raise UserError(
                    f"Retriever {report.retriever!r} has no {measure} on set {name!r}. A result "
                    "line compares values of one measure on the same sets: name a measure that "
                    "was computed, or evaluate the retriever there."
                )
    if len(reports) == 1:
        values = {result.name: result.metrics[measure] for result in reports[0].results}
    else:
        values = {report.retriever: report.mean(measure) for report in reports}
    return " ".join([measure, *(f"{safe_name(name)}={v:.4f}" for name, v in values.items())])


def terminal_table(reports: Sequence[Report], *, measures: Sequence[str] = MEASURES) -> str:
    """The results as aligned plain text; of several sets, by the main measure alone.

    Raises:
        UserError: no retriever has a value of any of `measures`.
    """
    shown = shown_measures(reports, measures)
    table = _table(reports, shown)
    if len(set_names(reports)) == 1:
        return _terminal(table)
    return f"{shown[0]}\n{_terminal(table)}"


def markdown_report(reports: Sequence[Report], *, measures: Sequence[str] = MEASURES) -> str:
    """The results as a Markdown page: the tables, then what each set is and its convention.

    The best value is bold; values that look the same at four decimals are equally good.

    Raises:
        UserError: no retriever has a value of any of `measures`.
    """
    shown = shown_measures(reports, measures)
    names = set_names(reports)
    if len(names) == 1:
        parts = [f"# Retrieval results: {_escaped(names[0])}", _markdown(_table(reports, shown))]
    else:
        parts = ["# Retrieval results"]
        for measure in shown:
            parts += [f"## {_escaped(measure)}", _markdown(_table(reports, [measure]))]
    return "\n\n".join([*parts, "## Sets", _set_descriptions(reports)]) + "\n"


def set_names(reports: Sequence[Report]) -> list[str]:
    """The sets of all reports, in the order in which they first appear."""
    return list(dict.fromkeys(result.name for report in reports for result in report.results))


def value_of(report: Report, set_name: str, measure: str) -> float | None:
    """The value a retriever reached on a set, None where it was not measured."""
    for result in report.results:
        if result.name == set_name:
            return result.metrics.get(measure)
    return None


def mean_of(report: Report, names: Sequence[str], measure: str) -> float | None:
    """Unweighted mean over the sets `names`, None unless the retriever was measured on all."""
    if any(value_of(report, name, measure) is None for name in names):
        return None
    return report.mean(measure)


def shown_measures(reports: Sequence[Report], measures: Sequence[str]) -> list[str]:
    """Those of `measures` that were computed at all.

    Raises:
        UserError: none was.
    """
    computed = {m for report in reports for result in report.results for m in result.metrics}
    shown = [measure for measure in measures if measure in computed]
    if not shown:
        raise UserError(
            f"None of the measures {', '.join(measures)} was computed (there are: "
            f"{', '.join(sorted(computed)) or 'none'}). A report shows at least one: name one of "
            "those."
        )
    return shown


def printable(name: str) -> str:
    """`name` on one line, without characters that steer a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in name).split()) or "(unnamed)"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Table:
    header: list[str]  # names, unescaped; the first is that of the names of the rows
    row_names: list[str]
    values: list[list[float | None]]
    is_best: list[list[bool]]


def _table(reports: Sequence[Report], measures: Sequence[str]) -> _Table:
    names = set_names(reports)
    if len(names) == 1:
        values = [[value_of(report, names[0], m) for m in measures] for report in reports]
        by_measure = [_best(column) for column in zip(*values, strict=True)]
        return _Table(
            header=["retriever", *measures],
            row_names=[report.retriever for report in reports],
            values=values,
            is_best=[list(row) for row in zip(*by_measure, strict=True)],
        )
    values = [[value_of(report, name, measures[0]) for report in reports] for name in names]
    values.append([mean_of(report, names, measures[0]) for report in reports])
    return _Table(
        header=["set", *(report.retriever for report in reports)],
        row_names=[*names, "mean"],
        values=values,
        is_best=[_best(row) for row in values],
    )


def _best(values: Sequence[float | None]) -> list[bool]:
    present = [value for value in values if value is not None]
    if len(present) < 2:  # best of one says nothing
        return [False] * len(values)
    best = _number(max(present))
    return [value is not None and _number(value) == best for value in values]


def _number(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.4f}"


def _terminal(table: _Table) -> str:
    cells = [[printable(name) for name in table.header]]
    for name, values in zip(table.row_names, table.values, strict=True):
        cells.append([printable(name), *(_number(value) for value in values)])
    widths = _widths(cells)
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join("  ".join(_padded(row, widths)) for row in cells)


def _markdown(table: _Table) -> str:
    cells = [[_escaped(name) for name in table.header]]
    for name, values, best in zip(table.row_names, table.values, table.is_best, strict=True):
        numbers = [_number(value) for value in values]
        bold = [f"**{n}**" if b else n for n, b in zip(numbers, best, strict=True)]
        cells.append([_escaped(name), *bold])
    return _markdown_grid(cells)


def _markdown_grid(cells: list[list[str]]) -> str:
    widths = [max(3, width) for width in _widths(cells)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    rows = [cells[0], rule, *cells[1:]]
    return "\n".join(f"| {' | '.join(_padded(row, widths))} |" for row in rows)


def _widths(cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(cell_len(cell) for cell in column) for column in zip(*cells, strict=True)]


def _padded(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    spaces = [" " * (w - cell_len(cell)) for cell, w in zip(row, widths, strict=True)]
    return [row[0] + spaces[0], *(s + c for s, c in zip(spaces[1:], row[1:], strict=True))]


def _escaped(name: str) -> str:
    """`name` as plain text in Markdown; underscores inside a word mean nothing there."""
    return re.sub(r"([\\|`*<>\[\]#$~])|(?<!\w)(_)|(_)(?!\w)", r"\\\g<0>", printable(name))


def _set_descriptions(reports: Sequence[Report]) -> str:
    results: dict[str, SetResult] = {}
    for report in reports:
        for result in report.results:
            results.setdefault(result.name, result)
    cells = [["set", "queries", "documents"]]
    cells += [
        [_escaped(r.name), str(r.num_queries), str(r.num_documents)] for r in results.values()
    ]
    groups: dict[str, list[str]] = {}
    for result in results.values():
        groups.setdefault(_convention(result.convention), []).append(_escaped(result.name))
    if len(groups) == 1:
        lines = [f"Convention: {next(iter(groups))}"]
    else:
        lines = [f"- Convention of {', '.join(names)}: {text}" for text, names in groups.items()]
    return "\n".join([_markdown_grid(cells), "", *lines])


def _convention(convention: Mapping[str, object]) -> str:
    pairs = (f"{_escaped(key)} = {_escaped(str(value))}" for key, value in convention.items())
    return ", ".join(pairs) or "not recorded"
