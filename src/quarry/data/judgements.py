"""Read judgements from files of three or four columns (BEIR, TREC), or from records.

query-id <tab> corpus-id <tab> score        BEIR, with its header or without
query-id iteration document-id grade        TREC, separated by blanks or tabs
{"query-id", "corpus-id", "score"}          mteb and the hub, JSONL or Parquet
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from quarry.data.cell_tables import unquoted
from quarry.data.jsonl import read_lines, record_id, shown
from quarry.data.record_files import form_of, read_records
from quarry.data.records import Judgement, collect_qrels
from quarry.errors import UserError
from quarry.types import MAX_GRADE

LINE_FORMS = (".tsv", ".txt", ".trec", ".csv")
JUDGEMENT_FORMS = (*LINE_FORMS, ".jsonl", ".parquet")

QUERY_KEYS = ("query-id", "query_id", "qid", "topic")
DOCUMENT_KEYS = ("corpus-id", "corpus_id", "doc-id", "doc_id", "docid", "document_id", "docno")
GRADE_KEYS = ("score", "relevance", "rel", "grade", "label")
"""Names of the three parts of a judgement, in records and headers."""

_KEYS = (QUERY_KEYS, DOCUMENT_KEYS, GRADE_KEYS)
_BY_COUNT = {3: (0, 1, 2), 4: (0, 2, 3)}
_LINE = "query-id document-id grade, or query-id iteration document-id grade as TREC has it"


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Return the judgements of a file: query id -> document id -> grade, in the file's order.

    Raises:
        UserError: as `read_judgements` and `collect_qrels`.
    """
    return collect_qrels(lambda: read_judgements([path]), source=path)


def read_given_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Return the judgements of a file that a user names, with any suffix (.qrels).

    Raises:
        UserError: as `read_qrels`.
    """
    if form_of(path) in JUDGEMENT_FORMS:
        return read_qrels(path)
    return collect_qrels(lambda: _judged_lines(path, ".txt"), source=path)


def read_judgements(files: Sequence[Path]) -> Iterator[Judgement]:
    """Yield the judgements of files in the formats of this module.

    The first line is a header if its grade is not a number and it names a key. A header with all
    three keys gives the order of the columns. A repeated judgement is yielded again.

    Raises:
        UserError: an unsupported kind of file; a line or record that is not a judgement; a grade
            that is not an integer (1.0 is one) or beyond `MAX_GRADE`.
    """
    for file in files:
        form = form_of(file)
        if form in LINE_FORMS:
            yield from _judged_lines(file, form)
        elif form in JUDGEMENT_FORMS:
            yield from _judged_records(file)
        else:
            raise UserError(
                f"{file}: judgements are read from {', '.join(JUDGEMENT_FORMS)} files (all but "
                ".parquet also with .gz); convert it"
            )


def _judged_records(file: Path) -> Iterator[Judgement]:
    for _, where, record in read_records([file], [key for keys in _KEYS for key in keys]):
        yield (
            where,
            record_id(record, _one_of(QUERY_KEYS, record, where), where),
            record_id(record, _one_of(DOCUMENT_KEYS, record, where), where),
            _grade_of_record(record, where),
        )


def _one_of(keys: Sequence[str], record: Mapping[str, Any], where: str) -> Sequence[str]:
    """Return the keys that the record has; if it has none, all of them, for the message."""
    present = [key for key in keys if key in record]
    if len({repr(record[key]) for key in present}) > 1:
        raise UserError(
            f"{where}: {' and '.join(map(repr, present))} differ and mean the same; keep one"
        )
    return present or keys


def _grade_of_record(record: Mapping[str, Any], where: str) -> int:
    key = _one_of(GRADE_KEYS, record, where)[0]
    if key not in record:
        raise UserError(f"{where}: lacks {' or '.join(map(repr, GRADE_KEYS))}; give the grade")
    value = record[key]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not (isinstance(value, int) or value.is_integer()):
        raise _not_an_integer(value, where)
    return _bounded(int(value), where)


def _judged_lines(file: Path, form: str) -> Iterator[Judgement]:
    positions: tuple[int, ...] | None = None
    num_columns = 0
    for line, text in read_lines(file):
        if not text.strip():
            continue
        where = f"{file}:{line}"
        columns = _columns(text, form, where)
        if positions is None:
            num_columns = len(columns)
            positions = _positions(columns, where)
            if _is_header(columns):
                continue
        if len(columns) != num_columns:
            raise UserError(
                f"{where}: {len(columns)} columns, not {num_columns} as on the lines before; a "
                f"line is {_LINE}"
            )
        query_id, document_id, grade = [columns[position] for position in positions]
        if not query_id or not document_id:
            raise UserError(f"{where}: an id is empty; a line is {_LINE}")
        yield where, query_id, document_id, _grade_of_text(grade, where)


def _columns(text: str, form: str, where: str) -> list[str]:
    """Split a line at tabs if it has one, else at blanks; a .csv at commas."""
    if form != ".csv":
        text = text.strip()
        cells = [cell.strip() for cell in text.split("\t")] if "\t" in text else text.split()
        return [unquoted(cell).strip() for cell in cells] if '"' in text else cells
    try:
        return [cell.strip() for cell in next(csv.reader([text], strict=True))]
    except csv.Error as error:
        raise UserError(f"{where}: malformed CSV ({error}); a line is {_LINE}") from error


def _positions(columns: Sequence[str], where: str) -> tuple[int, ...]:
    """Return the columns of query id, document id and grade: by header, else by column count."""
    names = [name.lower() for name in columns]
    named = [next((names.index(key) for key in keys if key in names), None) for keys in _KEYS]
    found = tuple(position for position in named if position is not None)
    if len(found) == len(_KEYS) and _is_header(columns):
        return found
    if len(columns) not in _BY_COUNT:
        raise UserError(f"{where}: {len(columns)} columns, not 3 or 4; a line is {_LINE}")
    return _BY_COUNT[len(columns)]


def _is_header(columns: Sequence[str]) -> bool:
    names = [name.lower() for name in columns]
    return any(name in keys for keys in _KEYS for name in names) and not _is_number(columns[-1])


def _grade_of_text(text: str, where: str) -> int:
    if text in ("0", "1"):  # fast path: nearly all are
        return int(text)
    if not re.fullmatch(r"[+-]?[0-9]{1,18}(\.0*)?", text):
        if re.fullmatch(r"[+-]?[0-9]+", text):
            raise _out_of_range(text, where)
        raise _not_an_integer(text, where)
    return _bounded(int(text.partition(".")[0]), where)


def _bounded(grade: int, where: str) -> int:
    if abs(grade) > MAX_GRADE:
        raise _out_of_range(str(grade), where)
    return grade


def _out_of_range(text: str, where: str) -> UserError:
    return UserError(
        f"{where}: the grade {shown(text)} is out of range (-{MAX_GRADE} to {MAX_GRADE}); grades "
        "are small whole numbers: 0, 1, 2, ..."
    )


def _not_an_integer(value: object, where: str) -> UserError:
    return UserError(
        f"{where}: the grade {shown(value)} is not an integer; grades are 0, 1, 2, ... (a header "
        f"names {QUERY_KEYS[0]}, {DOCUMENT_KEYS[0]}, {GRADE_KEYS[0]})"
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
