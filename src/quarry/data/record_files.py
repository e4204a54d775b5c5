"""Read the records of a table from any supported file (JSON, CSV, TSV, Parquet) with places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from quarry.data.cell_tables import read_csv, read_id_tsv, read_tsv
from quarry.data.json_array import is_json_array, read_json_array
from quarry.data.jsonl import first_repeated, read_jsonl, shown
from quarry.data.records import Record
from quarry.errors import UserError

ROWS_PER_BATCH = 1024

RECORD_FORMS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
"""Suffixes of files with documents, queries or training records; all but Parquet may be gzipped."""


_OTHER_ENDINGS = {".ndjson": ".jsonl", ".jsonlines": ".jsonl"}


def form_of(file: Path) -> str:
    """Return a file's suffix without `.gz`, such as ".jsonl" (also for .ndjson and .jsonlines)."""
    name = file.name.lower().removesuffix(".gz")
    ending = f".{name.rpartition('.')[2]}" if "." in name else ""
    return _OTHER_ENDINGS.get(ending, ending)


def read_records(files: Sequence[Path], columns: Sequence[str] | None = None) -> Iterator[Record]:
    """Yield each record with its first line (in Parquet: its row) and its place.

    A place is "file:line", followed by the record's number on that line from the second on. The
    suffix decides how a file is read; `.json` and `.jsonl` may both hold an array or lines.
    Cells of `.csv` and `.tsv` are strings. Parquet's values are Python's: lists, dicts, None.

    Args:
        files: read one after the other.
        columns: yield at least those of them that the records have; None: all columns. If given, a
            TSV file begins with an id, and with a header that names some of them or, if it has two
            columns, without one. Otherwise its first line is the header, as in CSV.

    Raises:
        UserError: an unsupported or damaged file.
    """
    before = 0
    for file in files:
        line = 0
        last_line, number = 0, 0  # number: of the record on its line; an array may be one line
        for line, record in _rows(file, columns):
            if line != last_line:
                last_line, number = line, 1
                yield before + line, f"{file}:{line}", record
            else:
                number += 1
                yield before + line, f"{file}:{line} (record {number})", record
        before += line


def _rows(file: Path, columns: Sequence[str] | None) -> Iterator[tuple[int, dict[str, Any]]]:
    form = form_of(file)
    if form in (".jsonl", ".json"):
        return read_json_array(file) if is_json_array(file) else read_jsonl(file)
    if form == ".csv":
        return read_csv(file)
    if form == ".tsv":
        return read_tsv(file) if columns is None else read_id_tsv(file, columns)
    if form == ".parquet":
        return _parquet_rows(file, columns)
    raise UserError(
        f"{file}: tables are read from {', '.join(RECORD_FORMS)} files (all but .parquet also with "
        ".gz); convert it, or rename it if it is one of them"
    )


def _parquet_rows(
    file: Path, columns: Sequence[str] | None
) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 0
    try:
        with pq.ParquetFile(file) as parquet:
            names = parquet.schema_arrow.names
            if (twice := first_repeated(names)) is not None:
                raise UserError(f"{file}: the column {shown(twice)} stands twice. Fix: rename one")
            present = None if columns is None else [name for name in columns if name in names]
            for batch in parquet.iter_batches(batch_size=ROWS_PER_BATCH, columns=present):
                for record in batch.to_pylist():
                    row += 1
                    yield row, record
    except UserError:
        raise
    # KeyError: an unknown time zone; OverflowError: a date that Python cannot hold
    except (OSError, ValueError, KeyError, OverflowError, pa.ArrowException) as error:
        where = f"{file}:{row + 1}" if row else str(file)
        raise UserError(
            f"{where}: not a sound Parquet file ({' '.join(str(error).split())}); fetch "
            "or write it again"
        ) from error
