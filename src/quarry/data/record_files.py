"""Read the records of a table from any supported file (JSON, CSV, TSV, Parquet) with places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from quarry.data.cell_tables import read_csv, read_id_tsv, read_tsv
from quarry.data.json_array import is_json_array, read_json_array
from quarry.data.jsonl import first_repeated, read_jsonl, shown
from quarry.data.records import Record
from quarry.data.source_part import SourcePart
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


def read_records(
    files: Sequence[Path],
    columns: Sequence[str] | None = None,
    *,
    part: SourcePart | None = None,
) -> Iterator[Record]:
    """Yield each record with its first line (in Parquet: its row) and its place.

    A place is "file:line", followed by the record's number on that line from the second on. The
    suffix decides how a file is read; `.json` and `.jsonl` may both hold an array or lines.
    Cells of `.csv` and `.tsv` are strings. Parquet's values are Python's: lists, dicts, None.

    Args:
        files: read one after the other.
        columns: yield at least those of them that the records have; None: all columns. If given, a
            TSV file begins with an id, and with a header that names some of them or, if it has two
            columns, without one. Otherwise its first line is the header, as in CSV.
        part: yield only this part. Of plain JSON lines only its bytes are read, of Parquet only
            its rows, and lines are counted from the first one read. Other files are assigned as
            they are; where there are fewer of them than parts, every part reads them all, and
            runs of records take turns.

    Raises:
        UserError: an unsupported or damaged file.
    """
    before = 0
    pieces = [(file, None, None) for file in files] if part is None else _pieces(files, part)
    for file, inside, turns in pieces:
        line = 0
        last_line, number = 0, 0  # number: of the record on its line; an array may be one line
        rows = _rows(file, columns, inside)
        if turns is not None:
            rows = (row for i, row in enumerate(rows) if turns.has_record(i))
        for line, record in rows:
            if line != last_line:
                last_line, number = line, 1
                yield before + line, f"{file}:{line}", record
            else:
                number += 1
                yield before + line, f"{file}:{line} (record {number})", record
        before += line


_Piece = tuple[Path, range | None, SourcePart | None]
"""A file, the bytes or rows of it that are read, and whose turns its records are."""


def _pieces(files: Sequence[Path], part: SourcePart) -> list[_Piece]:
    """Return what a part reads of the files, in their order."""
    cut = [file for file in files if _can_be_cut(file)]
    known = set(cut)
    others = [file for file in files if file not in known]
    found: dict[Path, _Piece] = {}
    for file, size, inside in part.share_of_files(cut):
        found[file] = (file, _rows_of(file, inside, size), None)
    if len(others) < part.count:
        found |= {file: (file, None, part) for file in others}
    else:
        found |= {file: (file, None, None) for file in part.whole_files(others)}
    return [found[file] for file in files if file in found]


def _can_be_cut(file: Path) -> bool:
    form = form_of(file)
    if form == ".parquet":
        return True
    is_plain = form in (".jsonl", ".json") and not file.name.lower().endswith(".gz")
    return is_plain and not is_json_array(file)


def _rows_of(file: Path, inside: range, size: int) -> range:
    """Return the bytes of a file with lines, the rows of one of Parquet."""
    if form_of(file) != ".parquet":
        return inside
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        num_rows = pq.read_metadata(file).num_rows
    except (OSError, pa.ArrowException) as error:
        raise _not_parquet(str(file), error) from error
    return range(inside.start * num_rows // size, inside.stop * num_rows // size)


def _rows(
    file: Path, columns: Sequence[str] | None, inside: range | None
) -> Iterator[tuple[int, dict[str, Any]]]:
    form = form_of(file)
    if form in (".jsonl", ".json"):
        return read_json_array(file) if is_json_array(file) else read_jsonl(file, inside)
    if form == ".csv":
        return read_csv(file)
    if form == ".tsv":
        return read_tsv(file) if columns is None else read_id_tsv(file, columns)
    if form == ".parquet":
        return _parquet_rows(file, columns, inside)
    raise UserError(
        f"{file}: tables are read from {', '.join(RECORD_FORMS)} files (all but .parquet also with "
        ".gz); convert it, or rename it if it is one of them"
    )


def _parquet_rows(
    file: Path, columns: Sequence[str] | None, inside: range | None
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
            groups, row, stop = _groups_of(parquet.metadata, inside)
            for batch in parquet.iter_batches(
                batch_size=ROWS_PER_BATCH, columns=present, row_groups=groups
            ):
                begin = 0 if inside is None else inside.start
                skipped = min(max(begin - row, 0), batch.num_rows)
                row += skipped
                for record in batch.slice(skipped, max(stop - row, 0)).to_pylist():
                    row += 1
                    yield row, record
                if row >= stop:
                    return
    except UserError:
        raise
    # KeyError: an unknown time zone; OverflowError: a date that Python cannot hold
    except (OSError, ValueError, KeyError, OverflowError, pa.ArrowException) as error:
        raise _not_parquet(f"{file}:{row + 1}" if row else str(file), error) from error


def _groups_of(metadata: Any, inside: range | None) -> tuple[list[int], int, int]:
    """Return the row groups that hold a range of rows, the first row of them, and the stop."""
    if inside is None:
        return list(range(metadata.num_row_groups)), 0, metadata.num_rows
    groups: list[int] = []
    begin = first = 0
    for number in range(metadata.num_row_groups):
        end = begin + metadata.row_group(number).num_rows
        if max(begin, inside.start) < min(end, inside.stop):
            first = first if groups else begin
            groups.append(number)
        begin = end
    return groups, first, inside.stop


def _not_parquet(where: str, error: Exception) -> UserError:
    return UserError(
        f"{where}: not a sound Parquet file ({' '.join(str(error).split())}); fetch or write it "
        "again"
    )
