"""Read queries from a table, a text file or standard input."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from quarry.data.json_array import is_json_array
from quarry.data.jsonl import read_lines, record_id
from quarry.data.record_files import RECORD_FORMS, form_of, read_records
from quarry.data.records import QUERY_COLUMNS, QUERY_IDS, QUERY_TEXTS
from quarry.errors import MissingPathError, UserError
from quarry.types import Query

STDIN = "-"

_Row = tuple[int, str, dict[str, Any]]
"""A number that is the id of a query without one, its place in the source, keys and values."""


def read_queries(source: str) -> list[Query]:
    """Return the queries of a file, or of standard input ("-").

    The suffix decides, with or without `.gz`: .tsv, .csv, .jsonl, .json and .parquet are tables
    with `text` (or `query`, `contents`) and perhaps `_id`; a TSV of two columns without a header
    has id and text. Any other file and standard input have one query a line, or JSONL if the first
    line is a JSON object. Empty lines are skipped. A query without an id has its line (in a JSON
    array its number).

    Raises:
        MissingPathError: there is no such file.
        UserError: a file is damaged, a record has no text or a wrong id, two ids are equal, or
            there is no query.
    """
    if source == STDIN:
        rows = _rows_of_lines(_stdin_lines(sys.stdin.buffer), "standard input")
    else:
        path = Path(source).expanduser()
        if not path.is_file():
            raise MissingPathError(
                f"task.queries={source}: no such file (one query a line, or "
                f"{', '.join(RECORD_FORMS)}). Fix: check the path, or - for standard input"
            )
        is_table = form_of(path) in RECORD_FORMS
        rows = _rows_of_table(path) if is_table else _rows_of_lines(read_lines(path), str(path))
    queries = list(_queries(rows))
    if not queries:
        raise UserError(f"task.queries={source}: holds no query. Fix: give it one a line")
    return queries


def _queries(rows: Iterable[_Row]) -> Iterator[Query]:
    seen: dict[str, int] = {}
    for number, where, record in rows:
        text = next((record[key] for key in QUERY_TEXTS if key in record), None)
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{where}: has no text ({', '.join(QUERY_TEXTS)}). Fix: correct it")
        has_id = any(key in record for key in QUERY_IDS)
        query_id = record_id(record, QUERY_IDS, where) if has_id else str(number)
        if query_id in seen:
            raise UserError(
                f"{where}: the id {query_id[:100]!r} stands on line {seen[query_id]} already. "
                "Fix: make ids differ"
            )
        seen[query_id] = number
        yield Query(query_id=query_id, text=text)


def _rows_of_table(path: Path) -> Iterator[_Row]:
    is_array = form_of(path) in (".json", ".jsonl") and is_json_array(path)
    records = enumerate(read_records([path], QUERY_COLUMNS), start=1)
    for number, (line, where, record) in records:
        yield (number if is_array else line), where, record


def _rows_of_lines(lines: Iterable[tuple[int, str]], name: str) -> Iterator[_Row]:
    is_jsonl: bool | None = None
    for number, line in lines:
        text = line.strip()
        if not text:
            continue
        record = _object(text) if is_jsonl in (None, True) else None
        if is_jsonl is None:
            is_jsonl = record is not None
        if is_jsonl and record is None:
            raise UserError(
                f"{name}:{number}: is no JSON object, as the first line is. Fix: correct the line"
            )
        yield number, f"{name}:{number}", {"text": text} if record is None else record


def _stdin_lines(file: BinaryIO) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(file, start=1):
        try:
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"standard input:{number}: is not UTF-8 ({error.reason})") from error


def _object(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
