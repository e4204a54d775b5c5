"""Format tables of names and numbers as aligned text, for a terminal or as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len

NOT_MEASURED = "-"
FAILED = "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Table of texts with a name column first.

    Attributes:
        header: column names, unescaped, that of the name column first.
        names: names of the rows, unescaped.
        cells: cells of each row, without its name.
        is_best: which cells are bold in Markdown.
    """

    header: list[str]
    names: list[str]
    cells: list[list[str]]
    is_best: list[list[bool]]


def number(value: float | None, *, has_failed: bool = False) -> str:
    """Format a number with four decimals; "failed" or "-" if there is none."""
    if value is None:
        return FAILED if has_failed else NOT_MEASURED
    return f"{value:.4f}"


def best_of(values: Sequence[float | None]) -> list[bool]:
    """Return which values are the best; values equal at four decimals are equally good."""
    present = [value for value in values if value is not None]
    if len(present) < 2:  # best of one says nothing
        return [False] * len(values)
    best = number(max(present))
    return [value is not None and number(value) == best for value in values]


def terminal(table: Table) -> str:
    """Return the table as plain text with aligned columns."""
    cells = [[printable(name) for name in table.header]]
    for name, row in zip(table.names, table.cells, strict=True):
        cells.append([printable(name), *row])
    widths = _widths(cells)
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join("  ".join(_padded(row, widths)) for row in cells)


def markdown(table: Table) -> str:
    """Return the table as Markdown, the best cells bold."""
    cells = [[escaped(name) for name in table.header]]
    for name, row, best in zip(table.names, table.cells, table.is_best, strict=True):
        bold = [f"**{cell}**" if b else cell for cell, b in zip(row, best, strict=True)]
        cells.append([escaped(name), *bold])
    return markdown_grid(cells)


def markdown_grid(cells: list[list[str]], *, num_texts: int = 1) -> str:
    """Return cells that are Markdown already as an aligned table, with the header first.

    The first `num_texts` columns are aligned left, the others, numbers, right.
    """
    widths = [max(3, width) for width in _widths(cells)]
    rule = ["-" * width for width in widths[:num_texts]]
    rule += ["-" * (width - 1) + ":" for width in widths[num_texts:]]
    rows = [_padded(row, widths, num_texts=num_texts) for row in [cells[0], rule, *cells[1:]]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def printable(name: str) -> str:
    """Return `name` on one line, without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in name).split()) or "(unnamed)"


def escaped(name: str) -> str:
    """Escape `name` as plain text in Markdown, where underscores inside a word need no escape."""
    return re.sub(r"([\\|`*<>\[\]#$~])|(?<!\w)(_)|(_)(?!\w)", r"\\\g<0>", printable(name))


def _widths(cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(cell_len(cell) for cell in column) for column in zip(*cells, strict=True)]


def _padded(row: Sequence[str], widths: Sequence[int], *, num_texts: int = 1) -> list[str]:
    spaces = [" " * (w - cell_len(cell)) for cell, w in zip(row, widths, strict=True)]
    pairs = list(zip(row, spaces, strict=True))
    texts = [cell + space for cell, space in pairs[:num_texts]]
    return [*texts, *(space + cell for cell, space in pairs[num_texts:])]
