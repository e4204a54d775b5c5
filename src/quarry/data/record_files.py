"""The records of a table, whatever file holds them (JSONL, Parquet, TSV), each with its place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from quarry.data.jsonl import read_jsonl, read_lines
from quarry.data.records import Record
from quarry.errors import UserError

ROWS_PER_BATCH = 1024

RECORD_FORMS = (".jsonl", ".tsv", ".parquet")
"""What documents and queries are read from; lines and TSV may be gzipped."""


def form_of(file: Path) -> str:
    """Return how a file's name ends, without `.gz`: ".jsonl"."""
    name = file.name.lower().removesuffix(".gz")
    return f".{name.rpartition('.')[2]}" if "." in name else ""


def read_records(files: Sequence[Path], columns: Sequence[str] = ()) -> Iterator[Record]:
    """Yield the records of files, with at least those of `columns` that they have.

    A TSV file begins with a header that names some of `columns`, or has two columns and none: id
    and text.

    Raises:
        UserError: another kind of file, or one that is damaged.
    """
    before = 0
    for file in files:
        line = 0
        for line, record in _rows(file, columns):
            yield before + line, f"{file}:{line}", record
        before += line


def unquoted(cell: str) -> str:
    """Return a cell without the quotes that it is wholly in, as CSV writers set them."""
    inner = cell[1:-1]
    is_quoted = len(cell) > 1 and cell[0] == cell[-1] == '"'
    return inner.replace('""', '"') if is_quoted and '"' not in inner.replace('""', "") else cell


def _rows(file: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    form = form_of(file)
    if form == ".jsonl":
        return read_jsonl(file)
    if form == ".parquet":
        return _parquet_rows(file, columns)
    if form == ".tsv":
        return _tsv_rows(file, columns)
    raise UserError(
        f"{file}: tables are read from {', '.join(RECORD_FORMS)} files (.jsonl and .tsv also with "
        ".gz); convert it"
    )


def _tsv_rows(file: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    names: list[str] | None = None
    for line, text in read_lines(file):
        if not text.strip():
            continue
        cells = text.split("\t")
        if names is None:
            header = [unquoted(cell.strip()) for cell in cells]
            if sum(name in columns for name in header) > 1:
                names = header
                continue
            names = ["_id", "text"]
        if len(cells) != len(names):
            raise UserError(
                f"{file}:{line}: {len(cells)} columns, not {len(names)} ({', '.join(names)}); "
                "separate them by tabs, and name three and more in a header: _id, title, text"
            )
        yield line, _tsv_record(names, cells)


def _tsv_record(names: Sequence[str], cells: Sequence[str]) -> dict[str, Any]:
    """Ids are never in quotes; a text may begin and end with its own, where nothing is doubled."""
    is_quoted = unquoted(cells[0]) != cells[0]
    return {
        name: unquoted(cell) if is_quoted or number == 0 or '""' in cell[1:-1] else cell
        for number, (name, cell) in enumerate(zip(names, cells, strict=True))
    }


def _parquet_rows(file: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 0
    try:
        with pq.ParquetFile(file) as parquet:
            present = [name for name in columns if name in parquet.schema_arrow.names]
            for batch in parquet.iter_batches(batch_size=ROWS_PER_BATCH, columns=present):
                for record in batch.to_pylist():
                    row += 1
                    yield row, record
    except (OSError, ValueError, pa.ArrowException) as error:
        where = f"{file}:{row + 1}" if row else str(file)
        raise UserError(
            f"{where}: not a sound Parquet file ({' '.join(str(error).split())}); fetch "
            "or write it again"
        ) from error
