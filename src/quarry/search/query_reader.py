"""Read queries from a file or standard input: one a line, or JSONL with ids."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from quarry.errors import MissingPathError, UserError
from quarry.types import Query

STDIN = "-"
ID_KEYS = ("_id", "query_id", "id")
TEXT_KEYS = ("text", "query")


def read_queries(source: str) -> list[Query]:
    """Return the queries of a file, or of standard input ("-").

    A file whose first line is a JSON object is JSONL, with `text` (or `query`) and perhaps `_id`;
    any other has one query a line. Empty lines are skipped; an id that is missing is the line.

    Raises:
        MissingPathError: there is no such file.
        UserError: a line is no UTF-8 or no such object, two ids are equal, or there is no query.
    """
    if source == STDIN:
        queries = list(_queries(sys.stdin.buffer, "standard input"))
    else:
        path = Path(source).expanduser()
        if not path.is_file():
            raise MissingPathError(
                f"task.queries={source}: no such file (one query a line, or JSONL). Fix: check the "
                "path, or - for standard input"
            )
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rb") as file:
            queries = list(_queries(cast(BinaryIO, file), str(path)))
    if not queries:
        raise UserError(f"task.queries={source}: holds no query. Fix: give it one a line")
    return queries


def _queries(file: BinaryIO, name: str) -> Iterator[Query]:
    is_jsonl: bool | None = None
    seen: dict[str, int] = {}
    for number, line in enumerate(file, start=1):
        try:
            text = line.decode("utf-8").strip().removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            raise UserError(f"{name}:{number}: is no UTF-8 ({error.reason})") from error
        if not text:
            continue
        if is_jsonl is None:
            is_jsonl = _object(text) is not None
        query = _parsed(text, f"{name}:{number}", number) if is_jsonl else _plain(text, number)
        if query.query_id in seen:
            raise UserError(
                f"{name}:{number}: the id {query.query_id[:100]!r} stands on line "
                f"{seen[query.query_id]} already. Fix: make ids differ"
            )
        seen[query.query_id] = number
        yield query


def _plain(text: str, number: int) -> Query:
    return Query(query_id=str(number), text=text)


def _parsed(line: str, where: str, number: int) -> Query:
    record = _object(line)
    if record is None:
        raise UserError(f"{where}: is no JSON object, as the first line is. Fix: correct the line")
    text = next((record[key] for key in TEXT_KEYS if key in record), None)
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{where}: has no text ({', '.join(TEXT_KEYS)}). Fix: correct the line")
    own = next((record[key] for key in ID_KEYS if key in record), number)
    return Query(query_id=str(own), text=text)


def _object(line: str) -> dict[str, object] | None:
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
