"""Write reports of retrievers: `report.md`, a table for the terminal, and a result line.

A table of one set has retrievers as rows and measures as columns; a table of several sets has sets
as rows and retrievers as columns. A group of sets is one row; its sets are in a table below.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quarry.errors import UserError
from quarry.evaluation.intervals import with_intervals
from quarry.evaluation.rows import (
    Row,
    failed_rows,
    has_failed,
    interval_of,
    mean_label,
    mean_of,
    members_of,
    rows_of,
    shown_measures,
    value_of,
)
from quarry.evaluation.run_directory_files import safe_name, write_results, write_runs
from quarry.evaluation.shown_caveats import caveat_section, mark_explained, marked, marked_sets
from quarry.evaluation.tables import (
    NOT_MEASURED,
    Table,
    best_of,
    escaped,
    markdown,
    markdown_grid,
    number,
    printable,
    terminal,
)
from quarry.metrics.bootstrap import NUM_RESAMPLES
from quarry.runtime.files import write_text
from quarry.types import Report, SetResult

MEASURES = ("nDCG@10", "Recall@100", "MRR@10")
REPORT_FILE = "report.md"


def write_report(
    reports: Sequence[Report],
    directory: Path,
    *,
    measures: Sequence[str] = MEASURES,
    merge: bool = False,
) -> tuple[Report, ...]:
    """Write `metrics.json`, `per_query/`, `runs/` and `report.md` into a run directory.

    Call it on rank 0 alone.

    Args:
        measures: measures in `report.md`, the main one first.
        merge: keep the results of other retrievers and sets in an older `metrics.json`.

    Returns:
        The reports that the directory now holds (see `write_results`), with confidence intervals.

    Raises:
        UserError: as `write_results`, `markdown_report` and `write_runs`, in that order.
    """
    reports = [with_intervals(report) for report in reports]
    merged = write_results(reports, directory, merge=merge)
    write_text(directory / REPORT_FILE, markdown_report(merged, measures=measures))
    write_runs(reports, directory)  # last: an id that no run file can hold must not lose the rest
    return merged


def result_line(reports: Sequence[Report], measure: str = "nDCG@10") -> str:
    """Return one line for logs and scripts: ``nDCG@10 name=0.1234 name=0.1234 ...``.

    With one retriever, names are the sets, then ``mean`` if there are several; otherwise they are
    the retrievers, and values are unweighted means over the sets. A group counts as one set in a
    mean. A failure reads ``name=failed``: a mean over fewer sets would be mistaken for the full
    one. Names pass through `safe_name`.

    Raises:
        UserError: a retriever has no value of `measure` on one of the sets, and did not fail there.
    """
    rows = rows_of(reports)
    sets = [Row(name=name, sets=(name,)) for row in rows for name in row.sets]
    for report in reports:
        for row in sets:
            if value_of(report, row, measure) is None and not has_failed(report, row):
                raise UserError(
                    f"Retriever {report.retriever!r} has no {measure} on set {row.name!r}. A "
                    "result line compares values of one measure on the same sets. Fix: name a "
                    "measure that was computed, or evaluate the retriever there."
                )
    if len(reports) == 1:
        values = {row.name: value_of(reports[0], row, measure) for row in sets}
    else:
        values = {report.retriever: mean_of(report, rows, measure) for report in reports}
    pairs = [(safe_name(name), value) for name, value in values.items()]
    if len(reports) == 1 and len(sets) > 1:
        pairs.append(("mean", mean_of(reports[0], rows, measure)))
    shown = (f"{name}={number(value, has_failed=True)}" for name, value in pairs)
    return " ".join([measure, *shown])


def terminal_table(reports: Sequence[Report], *, measures: Sequence[str] = MEASURES) -> str:
    """Return the results as aligned plain text; of several sets, by the main measure alone.

    A set with many judged documents missing from its corpus is marked and explained below.

    Raises:
        UserError: no retriever has a value of any of `measures`.
    """
    shown, rows = shown_measures(reports, measures), rows_of(reports)
    if len(rows) == 1 and not rows[0].is_group:
        lines = [terminal(_table_of_one_set(reports, rows[0], shown))]
    else:
        lines = [shown[0], terminal(_table(reports, rows, shown[0], has_mean=True))]
    return "\n".join([*lines, *map(printable, mark_explained(reports))])


def markdown_report(reports: Sequence[Report], *, measures: Sequence[str] = MEASURES) -> str:
    """Return the results as a Markdown page: tables, then descriptions of sets and conventions.

    The best value is bold; values that are equal at four decimals are equally good. Failed sets
    are named with the reason, and no mean includes them.

    Raises:
        UserError: no retriever has a value of any of `measures`.
    """
    shown, rows = shown_measures(reports, measures), rows_of(reports)
    if len(rows) == 1 and not rows[0].is_group:
        table = _table_of_one_set(reports, rows[0], shown)
        name = marked(rows[0].name, rows[0].sets, marked_sets(reports))
        parts = [f"# Retrieval results: {escaped(name)}", markdown(table)]
    else:
        parts = ["# Retrieval results"]
        for measure in shown:
            table = _table(reports, rows, measure, has_mean=True)
            parts += [f"## {escaped(measure)}", markdown(table)]
            if members := members_of(rows):
                parts += ["The sets of the groups:"]
                parts += [markdown(_table(reports, members, measure, has_mean=False))]
    parts += [escaped(line) for line in mark_explained(reports)]
    parts += [*_failures(reports), *caveat_section(reports), *_intervals(reports, rows, shown)]
    parts += ["## Sets", _set_descriptions(reports)]
    parts += [*corpus_dtypes(reports), *(escaped(line) for line in term_tokenizers(reports))]
    parts += contract_sections(reports)
    return "\n\n".join(parts) + "\n"


def _table_of_one_set(reports: Sequence[Report], row: Row, measures: Sequence[str]) -> Table:
    values = [[value_of(report, row, measure) for measure in measures] for report in reports]
    is_best = [best_of(column) for column in zip(*values, strict=True)]
    return Table(
        header=["retriever", *measures],
        names=[report.retriever for report in reports],
        cells=[
            [number(value, has_failed=has_failed(report, row)) for value in line]
            for report, line in zip(reports, values, strict=True)
        ],
        is_best=[list(line) for line in zip(*is_best, strict=True)],
    )


def _table(
    reports: Sequence[Report], rows: Sequence[Row], measure: str, *, has_mean: bool
) -> Table:
    doubtful = marked_sets(reports)
    names = [marked(row.label, row.sets, doubtful) for row in rows]
    values = [[value_of(report, row, measure) for report in reports] for row in rows]
    cells = [
        [
            number(v, has_failed=has_failed(report, row))
            for report, v in zip(reports, line, strict=True)
        ]
        for row, line in zip(rows, values, strict=True)
    ]
    if has_mean:
        failed = failed_rows(reports, rows)
        counted = [row for row in rows if row not in failed]
        means = [mean_of(report, counted, measure) for report in reports]
        names.append(mean_label(failed))
        values.append(means)
        cells.append([number(mean) for mean in means])
    return Table(
        header=["set", *(report.retriever for report in reports)],
        names=names,
        cells=cells,
        is_best=[best_of(line) for line in values],
    )


def _failures(reports: Sequence[Report]) -> list[str]:
    """Return a section on failed sets, empty if there are none."""
    lines = [
        f"- {escaped(name)} ({escaped(report.retriever)}): {escaped(reason)}"
        for report in reports
        for name, reason in report.failures.items()
    ]
    if not lines:
        return []
    return ["## Failed", "No value, and in no mean above:\n\n" + "\n".join(lines)]


def _intervals(
    reports: Sequence[Report], rows: Sequence[Row], measures: Sequence[str]
) -> list[str]:
    """Return a section on confidence intervals: one set by all measures, several by the main."""
    sets = [*(row for row in rows if not row.is_group), *members_of(rows)]
    if not any(result.intervals for report in reports for result in report.results):
        return []
    if len(sets) == 1:
        header = ["retriever", *measures]
        names = [report.retriever for report in reports]
        found = [[interval_of(report, sets[0], m) for m in measures] for report in reports]
        title = "## 95 % confidence intervals"
    else:
        header = ["set", *(report.retriever for report in reports)]
        names = [row.name for row in sets]
        found = [[interval_of(report, row, measures[0]) for report in reports] for row in sets]
        title = f"## 95 % confidence intervals of {escaped(measures[0])}"
    cells = [
        [NOT_MEASURED if i is None else f"{i[0]:.4f} to {i[1]:.4f}" for i in line] for line in found
    ]
    plain = [[False] * len(line) for line in cells]
    how = (
        f"Percentile bootstrap over the queries, {NUM_RESAMPLES:,} resamples: how much a value "
        "varies with the choice of queries. Retrievers vary together, so overlapping intervals do "
        "not mean that two are equally good."
    )
    return [title, markdown(Table(header=header, names=names, cells=cells, is_best=plain)), how]


def _set_descriptions(reports: Sequence[Report]) -> str:
    results: dict[str, SetResult] = {}
    for report in reports:
        for result in report.results:
            results.setdefault(result.name, result)
    cells = [["set", "source", "licence", "queries", "documents"]]
    cells += [
        [*map(_words, (r.name, r.source, r.licence)), str(r.num_queries), str(r.num_documents)]
        for r in results.values()
    ]
    return f"{markdown_grid(cells, num_texts=3)}\n\n{_conventions(list(results.values()))}"


def corpus_dtypes(reports: Sequence[Report]) -> list[str]:
    """Return a paragraph for each dtype other than float32 that corpus embeddings were held in."""
    found: dict[str, dict[str, None]] = {}
    for report in reports:
        for result in report.results:
            if result.corpus_dtype not in (None, "float32"):
                found.setdefault(str(result.corpus_dtype), {})[report.retriever] = None
    return [
        f"Embeddings of the corpus in {escaped(dtype)}, scores summed in float32: "
        f"{', '.join(map(escaped, names))}."
        for dtype, names in found.items()
    ]


def contract_sections(reports: Sequence[Report]) -> list[str]:
    """Return sections on how texts were fed to models, with the source of each setting."""
    parts = []
    known: list[tuple[Mapping[str, Any], list[str]]] = []
    for report in reports:
        if report.contract:
            names = next((names for found, names in known if found == report.contract), None)
            if names is None:
                known.append((report.contract, [report.retriever]))
            else:
                names.append(report.retriever)
    for contract, names in known:
        cells = [["part", "value", "source"]]
        for part, fact in contract["parts"].items():
            cells.append([escaped(part), _code(fact["value"]), escaped(str(fact["source"]))])
        parts += [f"## How texts were fed: {', '.join(map(escaped, names))}"]
        parts += [markdown_grid(cells, num_texts=3)]
        parts += [f"Note: {escaped(note)}." for note in contract["notes"]]
    return parts


def _code(value: object) -> str:
    """Return a value as JSON on one line, so that its white space is visible."""
    return escaped(json.dumps(value, ensure_ascii=False))


def term_tokenizers(reports: Sequence[Report]) -> list[str]:
    """Return a sentence for each term tokenizer that lexical retrievers used.

    It names the sets only if a retriever used several.
    """
    lines = []
    for report in reports:
        sets: dict[str, list[str]] = {}
        for result in report.results:
            if result.term_tokenizer is not None:
                sets.setdefault(result.term_tokenizer, []).append(result.name)
        for tokenizer, names in sets.items():
            where = f" ({', '.join(names)})" if len(names) < len(report.results) else ""
            lines.append(f"Terms of {report.retriever}: {tokenizer}{where}.")
    return lines


def _conventions(results: Sequence[SetResult]) -> str:
    """Return the rules as a table: the most frequent value, then other values with their sets."""
    rules = dict.fromkeys(key for result in results for key in result.convention)
    if not rules:
        return "Convention: not recorded"
    cells = [["convention", "value"]]
    for rule in rules:
        names: dict[str, list[str]] = {}
        for result in results:
            names.setdefault(_words(result.convention.get(rule)), []).append(escaped(result.name))
        most, *others = sorted(names, key=lambda value: -len(names[value]))
        value = "; ".join([most, *(f"{each} on {', '.join(names[each])}" for each in others)])
        cells.append([escaped(rule.replace("_", " ")), value])
    return markdown_grid(cells, num_texts=2)


def _words(value: object) -> str:
    """Return a fact as Markdown text; `-` for none."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value)) or NOT_MEASURED
    return NOT_MEASURED if value is None else escaped(str(value))
