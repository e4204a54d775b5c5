"""Names and numbers as aligned text, for a terminal or as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len

NOT_MEASURED = "-"
FAILED = "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Rows of texts, a name first.

    Attributes:
        header: names, unescaped; the first is that of the names of the rows.
        names: of the rows, unescaped.
        cells: of each row, without its name.
        is_best: which cells are to stand out in Markdown.
    """

    header: list[str]
    names: list[str]
    cells: list[list[str]]
    is_best: list[list[bool]]


def number(value: float | None, *, has_failed: bool = False) -> str:
    """Four decimals, or why there is no number."""
    if value is None:
        return FAILED if has_failed else NOT_MEASURED
    return f"{value:.4f}"


def best_of(values: Sequence[float | None]) -> list[bool]:
    """Which values are the best, those included that look like it at four decimals."""
    present = [value for value in values if value is not None]
    if len(present) < 2:  # best of one says nothing
        return [False] * len(values)
    best = number(max(present))
    return [value is not None and number(value) == best for value in values]


def terminal(table: Table) -> str:
    """The table with its columns under one another."""
    cells = [[printable(name) for name in table.header]]
    for name, row in zip(table.names, table.cells, strict=True):
        cells.append([printable(name), *row])
    widths = _widths(cells)
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join("  ".join(_padded(row, widths)) for row in cells)


def markdown(table: Table) -> str:
    """The table in Markdown, the best cells bold."""
    cells = [[escaped(name) for name in table.header]]
    for name, row, best in zip(table.names, table.cells, table.is_best, strict=True):
        bold = [f"**{cell}**" if b else cell for cell, b in zip(row, best, strict=True)]
        cells.append([escaped(name), *bold])
    return markdown_grid(cells)


def markdown_grid(cells: list[list[str]], *, num_texts: int = 1) -> str:
    """Cells that are Markdown already, the header first; after `num_texts` columns, numbers."""
    widths = [max(3, width) for width in _widths(cells)]
    rule = ["-" * width for width in widths[:num_texts]]
    rule += ["-" * (width - 1) + ":" for width in widths[num_texts:]]
    rows = [_padded(row, widths, num_texts=num_texts) for row in [cells[0], rule, *cells[1:]]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def printable(name: str) -> str:
    """`name` on one line, without characters that steer a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in name).split()) or "(unnamed)"


def escaped(name: str) -> str:
    """`name` as plain text in Markdown; underscores inside a word mean nothing there."""
    return re.sub(r"([\\|`*<>\[\]#$~])|(?<!\w)(_)|(_)(?!\w)", r"\\\g<0>", printable(name))


def _widths(cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(cell_len(cell) for cell in column) for column in zip(*cells, strict=True)]


def _padded(row: Sequence[str], widths: Sequence[int], *, num_texts: int = 1) -> list[str]:
    spaces = [" " * (w - cell_len(cell)) for cell, w in zip(row, widths, strict=True)]
    pairs = list(zip(row, spaces, strict=True))
    texts = [cell + space for cell, space in pairs[:num_texts]]
    return [*texts, *(space + cell for cell, space in pairs[num_texts:])]
