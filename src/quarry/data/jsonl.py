"""Where text enters: lines and JSON objects of a file, plain or gzipped, each with its line number.

Every reader of this package goes through here, so that a bad line is always named as file:line.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from quarry.errors import MissingPathError, UserError

_MAX_SHOWN = 80

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # a mark of UTF-32 begins with one of these


def find_file(path: Path) -> Path:
    """`path` itself or, where only that exists, `path` with `.gz` appended.

    Raises:
        MissingPathError: neither is there.
    """
    path = path.expanduser()
    if path.is_file():
        return path
    zipped = path.with_name(f"{path.name}.gz")
    if zipped.is_file():
        return zipped
    if path.is_dir():
        raise MissingPathError(f"{path}: is a folder, a file is needed; name a file inside it")
    raise MissingPathError(
        f"{path}: no such file, and no {zipped.name} beside it; check the path or fetch the data"
    )


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number (from 1) and text of each line, without its line end; a byte order mark is dropped.

    Raises:
        MissingPathError: at the call, see `find_file`.
        UserError: while iterating, for bytes that are not UTF-8, a NUL, a carriage return inside a
            line, a damaged or cut off gzip file, or a file that cannot be read.
    """
    return _decoded_lines(find_file(path))


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number (from 1) and object of each line of a JSONL file. Blank lines are skipped.

    Raises:
        MissingPathError: at the call, see `find_file`.
        UserError: while iterating, for what `read_lines` refuses and for a line that is no JSON
            object, that has a key twice or that escapes half a character (a lone surrogate: no
            text can hold it).
    """
    return _objects(find_file(path))


def record_id(record: dict[str, Any], keys: Sequence[str], where: str) -> str:
    """The id under the first of `keys` that the record has, as a string; numbers are cast."""
    for key in keys:
        if key in record:
            break
    else:
        raise UserError(f"{where}: lacks {' or '.join(map(repr, keys))}; every line needs an id")
    value = record[key]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        raise UserError(f"{where}: {key!r} is {shown(value)}; an id is a string that is not empty")
    if "\0" in value:  # trec_eval's strings end there
        raise UserError(f"{where}: {key!r} is {shown(value)}; an id holds no NUL: rename it")
    return value


def shown(value: object) -> str:
    """Return a value as messages show it: on one line, and not all of a long one."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def record_text(record: dict[str, Any], key: str, where: str) -> str:
    """The string under `key`."""
    value = record.get(key)
    if not isinstance(value, str):
        found = f"is {type(value).__name__}" if key in record else "is missing"
        raise UserError(f"{where}: {key!r} {found}; it must be a string")
    return value


def _decoded_lines(path: Path) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        with _open_binary(path) as file:
            for number, raw in enumerate(file, start=1):
                yield number, _decode(raw, path, number)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(
            f"{path}:{number + 1}: the gzip file is damaged or cut off at or soon after this line "
            f"({error}); fetch or write it again"
        ) from error
    except OSError as error:
        raise UserError(
            f"{path}:{number + 1}: cannot be read ({error.strerror or error}); check the file and "
            "its permissions"
        ) from error


def _open_binary(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        # The wrapper splits lines in C; GzipFile itself does it a line at a time in Python.
        return io.BufferedReader(gzip.GzipFile(path), buffer_size=1 << 20)
    return path.open("rb", buffering=1 << 20)


def _decode(raw: bytes, path: Path, number: int) -> str:
    if number == 1 and raw.startswith(_UTF_16):
        raise UserError(
            f"{path}:1: the file is UTF-16 or UTF-32, not UTF-8; convert it: iconv -f UTF-16 -t "
            "UTF-8"
        )
    try:
        text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}:{number}: not UTF-8 (byte 0x{raw[error.start]:02x} at byte {error.start} of "
            "the line); convert the file to UTF-8"
        ) from error
    text = text.rstrip("\r\n")
    if "\0" in text:
        raise UserError(
            f"{path}:{number}: holds a NUL byte, so it is damaged or no UTF-8 (UTF-16 without its "
            "mark?); convert or fetch it again"
        )
    if "\r" in text:
        raise UserError(
            f"{path}:{number}: a carriage return inside the line; lines end in a newline: convert "
            "the line ends (tr '\\r' '\\n')"
        )
    return text


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in _decoded_lines(path):
        if line and not line.isspace():
            yield number, _object(line, path, number)


class _RepeatedKeyError(ValueError):
    """A JSON object names a key twice: which of the two values counts, nobody can know."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKeyError(next(key for key in keys if keys.count(key) > 1))
    return record


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def _object(line: str, path: Path, number: int) -> dict[str, Any]:
    where = f"{path}:{number}"
    try:
        value = _DECODER.decode(line)
        if "\\ud" in line or "\\uD" in line:
            json.dumps(value, ensure_ascii=False).encode()
    except _RepeatedKeyError as error:
        raise UserError(f"{where}: the key {shown(str(error))} stands twice; keep one") from error
    except json.JSONDecodeError as error:
        raise UserError(_malformed(line, where, error)) from error
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: a \\u escape names half a character (a lone surrogate); "
            "repair the text or remove the line"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{where}: JSON that cannot be read ({error}); repair or remove the line"
        ) from error
    if not isinstance(value, dict):
        raise UserError(
            f"{where}: holds a JSON {type(value).__name__}, not an object; "
            "write one object a line, as JSONL has it: jq -c '.[]' makes lines of an array"
        )
    return value


def _malformed(line: str, where: str, error: json.JSONDecodeError) -> str:
    if line.lstrip().startswith("["):
        return (
            f"{where}: malformed JSON, an array over several lines; write one object a line: "
            "jq -c '.[]' makes lines of an array"
        )
    return (
        f"{where}: malformed JSON at column {error.colno} ({error.msg}); "
        "write one complete JSON object a line"
    )
