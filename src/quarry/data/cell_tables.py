"""Read the records of CSV and TSV tables; all cells are strings.

CSV is read as RFC 4180 defines it. A TSV file has one record a line, quoted or not.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from quarry.data.jsonl import first_repeated, read_lines, shown
from quarry.errors import UserError

MAX_CELL_CHARACTERS = 1 << 28
"""Limit of a CSV cell. A longer one has an unclosed quote: it would hold the rest of the file."""


def read_csv(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each record's first line and its cells under the names of the header.

    Quoted cells may hold commas, newlines and doubled quotes. Blank lines are skipped.

    Raises:
        UserError: while iterating, for what `read_lines` refuses, for a header with an empty or
            repeated name, for unmatched quotes, for a record of more or fewer cells.
    """
    names: list[str] | None = None
    for line, cells in _csv_rows(file):
        where = f"{file}:{line}"
        if names is None:
            names = column_names(cells, where)
            _check_commas(names, where)
        elif len(cells) != len(names):
            raise UserError(
                f"{where}: {len(cells)} cells, the header has {len(names)} ({_listed(names)}). "
                "Fix: put cells that hold commas, quotes or newlines in double quotes, as CSV "
                "writers do, or write .jsonl"
            )
        else:
            yield line, dict(zip(names, cells, strict=True))


def read_tsv(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each record's line and its cells under the names of the header.

    Cells keep quotes that belong to their text. Quotes set by a CSV writer are removed: from all
    cells if the header is quoted, else from cells with doubled quotes inside. Blank lines are
    skipped.

    Raises:
        UserError: while iterating, for what `read_lines` refuses, for a header with an empty or
            repeated name, for a line of more or fewer cells.
    """
    names: list[str] | None = None
    is_quoted = False
    for line, cells in _tsv_rows(file):
        where = f"{file}:{line}"
        if names is None:
            is_quoted = all(unquoted(cell) != cell for cell in cells)
            names = column_names([unquoted(cell) for cell in cells], where)
        elif len(cells) != len(names):
            raise UserError(
                f"{where}: {len(cells)} cells, the header has {len(names)} ({_listed(names)}). "
                "Fix: separate cells by one tab; write .csv or .jsonl where a cell holds tabs or "
                "newlines, in quotes or not"
            )
        else:
            yield (
                line,
                {
                    name: unquoted(cell) if is_quoted or '""' in cell[1:-1] else cell
                    for name, cell in zip(names, cells, strict=True)
                },
            )


def read_id_tsv(file: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each record's line and its cells; the first cell of a line is an id.

    The file begins with a header that names some of `columns`, or has two columns, id and text,
    and no header.

    Raises:
        UserError: while iterating, for what `read_lines` refuses and for a wrong number of cells.
    """
    names: list[str] | None = None
    for line, cells in _tsv_rows(file):
        if names is None:
            header = [unquoted(cell.strip()) for cell in cells]
            if sum(name in columns for name in header) > 1:
                names = header
                continue
            names = ["_id", "text"]
        if len(cells) != len(names):
            raise UserError(
                f"{file}:{line}: {len(cells)} columns, not {len(names)} ({_listed(names)}); "
                "separate them by tabs, and name three and more in a header: _id, title, text"
            )
        yield line, _id_record(names, cells)


def unquoted(cell: str) -> str:
    """Return a cell without the quotes that enclose all of it, as CSV writers set them."""
    inner = cell[1:-1]
    is_quoted = len(cell) > 1 and cell[0] == cell[-1] == '"'
    return inner.replace('""', '"') if is_quoted and '"' not in inner.replace('""', "") else cell


def column_names(header: Sequence[str], where: str) -> list[str]:
    """Return the stripped column names of a header.

    Raises:
        UserError: a name is empty or repeated.
    """
    names = [name.strip() for name in header]
    if "" in names:
        raise UserError(
            f"{where}: column {names.index('') + 1} of the header has no name ({_listed(names)}). "
            "Fix: name it, or remove it (pandas: to_csv(index=False))"
        )
    if (name := first_repeated(names)) is not None:
        raise UserError(
            f"{where}: the column {shown(name)} stands twice in the header. Fix: rename or remove "
            "one"
        )
    return names


def _csv_rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield each row's first line and its cells; blank lines are left out."""
    if csv.field_size_limit() < MAX_CELL_CHARACTERS:  # 131,072, for all readers of the process
        csv.field_size_limit(MAX_CELL_CHARACTERS)
    rows = csv.reader((text for _, text in read_lines(file, keeps_returns=True)), strict=True)
    while True:
        line = rows.line_num + 1
        try:
            cells = next(rows, None)
        except csv.Error as error:
            raise _malformed(file, line, rows.line_num, error) from error
        if cells is None:
            return
        if len(cells) > 1 or any(map(str.strip, cells)):
            yield line, cells


def _malformed(file: Path, line: int, last_line: int, error: csv.Error) -> UserError:
    if "new-line" in str(error):
        return UserError(
            f"{file}:{last_line}: a carriage return outside of quotes; lines end in a newline. "
            "Fix: convert the line ends (tr '\\r' '\\n'), or put the cell in double quotes"
        )
    end = f"line {last_line}" if last_line > line else "its line"
    fact = "a quote that opens in it is not closed" if "unexpected end" in str(error) else error
    return UserError(
        f"{file}:{line}: the record that begins here is malformed CSV, found on {end}: {fact}. "
        "Fix: close quotes, and double those inside a cell in quotes, as CSV writers do, or write "
        ".jsonl"
    )


def _check_commas(names: Sequence[str], where: str) -> None:
    """Raise if the header has another separator than commas: each record would be one cell."""
    between = next((mark for mark in "\t;|" if len(names) == 1 and mark in names[0]), None)
    if between is not None:
        raise UserError(
            f"{where}: a .csv has commas, this header has {between!r} ({_listed(names)}). Fix: "
            "write it with commas; a table with tabs and without quotes may be named .tsv"
        )


def _tsv_rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    return ((line, text.split("\t")) for line, text in read_lines(file) if text.strip())


def _id_record(names: Sequence[str], cells: Sequence[str]) -> dict[str, Any]:
    """Return column name -> cell, without the quotes of CSV.

    An id is never quoted; a text may begin and end with quotes of its own, if none is doubled.
    """
    is_quoted = unquoted(cells[0]) != cells[0]
    return {
        name: unquoted(cell) if is_quoted or number == 0 or '""' in cell[1:-1] else cell
        for number, (name, cell) in enumerate(zip(names, cells, strict=True))
    }


def _listed(names: Sequence[str]) -> str:
    """Join names for a message, and shorten a long list."""
    text = ", ".join(names)
    return text if len(text) <= 200 else f"{text[:200]}..."
