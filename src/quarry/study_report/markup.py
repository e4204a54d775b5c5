"""Format a grid as Markdown, LaTeX and CSV, and the values of tables as one CSV file."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence

from quarry.evaluation.tables import escaped, markdown_grid, printable
from quarry.study_report.grid import MEAN, Grid, GridCell
from quarry.study_report.table import StudyTable

DAGGER = "†"
MAX_PLAIN_COLUMNS = 7
"""LaTeX tables with more columns are scaled to the width of the text."""

_LATEX = {
    "\\": r"\textbackslash{}",
    "[": "{[}",  # after a line break it would begin a length
    "]": "{]}",
    "*": "{*}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "†": r"$^{\dagger}$",
    "…": r"\ldots{}",
}


def grid_markdown(grid: Grid) -> str:
    """Return the grid as Markdown; second best values are underlined by HTML."""
    header = [f"{name} {measure}".strip() for name, measure in grid.header]
    rows = [[escaped(text) for text in ("model", *header)]]
    for number, block in enumerate(grid.blocks):
        sign = f" {DAGGER}" if number >= grid.published_from else ""
        rows += [[escaped(r.label) + sign, *map(_markdown_cell, r.cells)] for r in block]
    return markdown_grid(rows)


def _markdown_cell(cell: GridCell) -> str:
    if cell.text is None:
        return "-"
    text = {"best": f"**{cell.text}**", "second": f"<u>{cell.text}</u>"}.get(
        cell.emphasis or "", cell.text
    )
    mark = r"\*" if cell.is_marked else ""
    return f"{text}{mark}" + (f" ± {cell.deviation}" if cell.deviation else "")


def grid_latex(grid: Grid) -> str:
    """Return a LaTeX `table` environment; it needs booktabs (and graphicx, for many columns)."""
    num_columns = len(grid.header)
    is_wide = num_columns > MAX_PLAIN_COLUMNS
    lines = [
        r"\begin{table}[tbp]",
        r"\centering",
        rf"\caption{{{latex(grid.title)}. {latex(' '.join(grid.caption))}}}",
        rf"\label{{tab:{grid.key.replace('_', '-')}}}",
        *([r"\resizebox{\textwidth}{!}{%"] if is_wide else []),
        rf"\begin{{tabular}}{{l{'r' * num_columns}}}",
        r"\toprule",
        _line("model", *(latex(name) for name, _ in grid.header)),
    ]
    if any(measure for _, measure in grid.header):
        lines.append(_line("", *(latex(measure) for _, measure in grid.header)))
    for number, block in enumerate(grid.blocks):
        sign = latex(DAGGER) if number >= grid.published_from else ""
        lines.append(r"\midrule")
        lines += [_line(latex(r.label) + sign, *map(_latex_cell, r.cells)) for r in block]
    ends = [r"\bottomrule", r"\end{tabular}" + ("}" if is_wide else ""), r"\end{table}"]
    return "\n".join([*lines, *ends]) + "\n"


def _line(*cells: str) -> str:
    return " & ".join(cells) + r" \\"


def _latex_cell(cell: GridCell) -> str:
    if cell.text is None:
        return "--"
    number = f"${cell.text}$" if cell.text[0] in "+-" else cell.text
    text = {"best": rf"\textbf{{{number}}}", "second": rf"\underline{{{number}}}"}.get(
        cell.emphasis or "", number
    )
    mark = "$^{*}$" if cell.is_marked else ""
    return f"{text}{mark}" + (rf" {{\small$\pm${cell.deviation}}}" if cell.deviation else "")


def latex(text: str) -> str:
    """Escape `text` as plain text in LaTeX."""
    return re.sub(r"""[][*\\{}&%$#_~^<>|"±†…]""", lambda m: _LATEX[m[0]], printable(text))


def latex_document(keys: list[str]) -> str:
    """Return a LaTeX document that includes the tables of these keys."""
    inputs = "\n".join(rf"\input{{tables/{key}.tex}}" for key in keys)
    return (
        "% pdflatex report.tex\n"
        "\\documentclass{article}\n"
        "\\usepackage[T1]{fontenc}\n"
        "\\usepackage[utf8]{inputenc}\n"
        "\\usepackage[margin=2cm]{geometry}\n"
        "\\usepackage{booktabs}\n"
        "\\usepackage{graphicx}\n"
        "\\begin{document}\n"
        f"{inputs}\n"
        "\\end{document}\n"
    )


def grid_csv(grid: Grid) -> str:
    """Return the grid as CSV, one row a line; missing values are empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    header = [f"{name} {measure}".strip() for name, measure in grid.header]
    named = [part for name in header for part in (name, f"{name} deviation", f"{name} mark")]
    writer.writerow(["model", "published", *named])
    for number, block in enumerate(grid.blocks):
        is_published = str(number >= grid.published_from).lower()
        for row in block:
            cells = [
                part
                for cell in row.cells
                for part in (cell.text or "", cell.deviation or "", "*" if cell.is_marked else "")
            ]
            writer.writerow([row.label, is_published, *cells])
    return stream.getvalue()


HEADER = (
    "table",
    "stage",
    "suite",
    "model",
    "source",
    "column",
    "measure",
    "value",
    "deviation",
    "num_seeds",
    "missing",
    "base",
    "difference",
    "p_value",
    "p_corrected",
    "is_significant",
    "num_queries",
)


def values_csv(tables: Sequence[StudyTable]) -> str:
    """Return all tables as CSV, a line for each cell, numbers at full precision.

    `source` is empty for our own results, and `missing` says why there is no value.
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, HEADER, restval="", lineterminator="\n")
    writer.writeheader()
    for table in tables:
        writer.writerows(_measured(table))
        writer.writerows(_published(table))
    return stream.getvalue()


def _measured(table: StudyTable) -> Iterator[dict[str, object]]:
    for row, entry in enumerate(table.entries):
        for column, place in enumerate(_places(table)):
            cell = table.cells[row][column]
            line = _head(table) | place | {"model": entry.label, "num_seeds": cell.num_seeds}
            for key, value in (
                ("value", cell.value),
                ("deviation", cell.deviation),
                ("missing", cell.reason),
                ("difference", table.difference(row, column)),
            ):
                line[key] = "" if value is None else value
            comparison = table.comparisons.get((row, column))
            if comparison is not None and table.base is not None:
                line |= {
                    "base": table.base.label,
                    "p_value": comparison.p_value,
                    "p_corrected": comparison.corrected,
                    "is_significant": str(comparison.is_significant).lower(),
                    "num_queries": comparison.num_queries,
                }
            yield line


def _published(table: StudyTable) -> Iterator[dict[str, object]]:
    for published, values in table.published:
        for place, value in zip(_places(table), values, strict=True):
            if value is not None:
                own = {"model": published.label, "source": published.source, "value": value.text}
                yield _head(table) | place | own


def _head(table: StudyTable) -> dict[str, object]:
    return {"table": table.key, "stage": table.stage, "suite": table.suite.key}


def _places(table: StudyTable) -> list[dict[str, object]]:
    places: list[dict[str, object]] = [
        {"column": column.row.name, "measure": column.measure} for column in table.columns
    ]
    if table.has_average:
        places.append({"column": MEAN, "measure": table.measures[0]})
    return places
