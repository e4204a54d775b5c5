"""Read lines and JSON objects of a file, plain or gzipped, each with its line number.

Every reader of this package uses this module, so that a bad line is always named as file:line.
"""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from quarry.errors import MissingPathError, UserError
from quarry.runtime.bounded_gzip import open_gzip

_MAX_SHOWN = 80

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # a mark of UTF-32 begins with one of these


def find_file(path: Path) -> Path:
    """Return `path` itself or, if only that exists, `path` with `.gz` appended.

    Raises:
        MissingPathError: neither exists.
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


def read_lines(path: Path, *, keeps_returns: bool = False) -> Iterator[tuple[int, str]]:
    """Yield number (from 1) and text of each line, without line end and byte order mark.

    Args:
        path: the file, plain or gzipped.
        keeps_returns: keep line ends and carriage returns in the lines. CSV needs them: a quoted
            cell may hold both.

    Raises:
        MissingPathError: at the call, see `find_file`.
        UserError: while iterating, for bytes that are not UTF-8, a NUL, a carriage return inside a
            line, a damaged or truncated gzip file, or a file that cannot be read.
    """
    return _decoded_lines(find_file(path), keeps_returns)


def read_jsonl(path: Path, inside: range | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line number (from 1) and object of each line of a JSONL file. Blank lines are skipped.

    Args:
        inside: read only the lines that begin in this range of bytes of a plain file, and count
            from the first of them; None: all.

    Raises:
        MissingPathError: at the call, see `find_file`.
        UserError: while iterating, for what `read_lines` refuses and for a line that is not a JSON
            object, repeats a key or escapes half a character (a lone surrogate, which no text can
            hold).
    """
    return _objects(find_file(path), inside)


def record_id(record: dict[str, Any], keys: Sequence[str], where: str) -> str:
    """Return the id under the first of `keys` that the record has; numbers are cast to strings."""
    for key in keys:
        if key in record:
            break
    else:
        raise UserError(f"{where}: lacks {' or '.join(map(repr, keys))}; every line needs an id")
    value = record[key]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer():  # a column of numbers with gaps
        return str(int(value))
    if not isinstance(value, str) or not value:
        raise UserError(
            f"{where}: {key!r} is {shown(value)}; an id is a string that is not empty, or a whole "
            "number"
        )
    if "\0" in value:  # trec_eval's strings end there
        raise UserError(f"{where}: {key!r} is {shown(value)}; an id holds no NUL: rename it")
    return value


def shown(value: object) -> str:
    """Return a value as messages show it: on one line, shortened if long."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def record_text(record: dict[str, Any], key: str, where: str) -> str:
    """Return the string under `key`."""
    value = record.get(key)
    if not isinstance(value, str):
        found = f"is {type(value).__name__}" if key in record else "is missing"
        raise UserError(f"{where}: {key!r} {found}; it must be a string")
    return value


def first_repeated(names: Iterable[str]) -> str | None:
    """Return the first name that occurred before, None if all differ."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _decoded_lines(
    path: Path, keeps_returns: bool = False, inside: range | None = None
) -> Iterator[tuple[int, str]]:
    number = 0
    with open_binary(path, lambda: number + 1) as file:
        lines = file if inside is None else _lines_in(file, inside)
        for number, raw in enumerate(lines, start=1):
            text = _decode(raw, path, number)
            if not keeps_returns:
                text = text.rstrip("\r\n")
                if "\r" in text:
                    raise has_return(f"{path}:{number}")
            yield number, text


def _lines_in(file: IO[bytes], inside: range) -> Iterator[bytes]:
    """Yield the lines whose first byte is in a range."""
    position = 0
    if inside.start:
        file.seek(inside.start - 1)  # a line that begins at the start itself is in
        position = inside.start - 1 + len(file.readline())
    while position < inside.stop and (raw := file.readline()):
        position += len(raw)
        yield raw


@contextmanager
def open_binary(path: Path, line: Callable[[], int]) -> Iterator[IO[bytes]]:
    """Open a file, decompressed if its name ends in .gz, and report errors with their line.

    Args:
        path: the file.
        line: returns the line that is being read, for messages.

    Raises:
        UserError: inside the block, for a gzip file that is damaged, truncated or expands too far,
            or a file that is unreadable.
    """
    try:
        with _open(path) as file:
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(
            f"{path}:{line()}: the gzip file is damaged or cut off at or soon after this line "
            f"({error}); fetch or write it again"
        ) from error
    except OSError as error:
        raise UserError(
            f"{path}:{line()}: cannot be read ({error.strerror or error}); check the file and "
            "its permissions"
        ) from error


def _open(path: Path) -> IO[bytes]:
    if path.suffix.lower() == ".gz":
        return open_gzip(path)
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
        position = f"byte {error.start} of the line"
        raise is_not_utf8(f"{path}:{number}", error, position) from error
    if "\0" in text:
        raise has_nul(f"{path}:{number}")
    return text


def has_nul(where: str) -> UserError:
    """Return the error for a NUL in a text file."""
    return UserError(
        f"{where}: holds a NUL byte, so it is damaged or no UTF-8 (UTF-16 without its mark?); "
        "convert or fetch it again"
    )


def has_return(where: str) -> UserError:
    """Return the error for a carriage return that no newline follows."""
    return UserError(
        f"{where}: a carriage return inside the line; lines end in a newline: convert the line "
        "ends (tr '\\r' '\\n')"
    )


def is_not_utf8(where: str, error: UnicodeDecodeError, position: str) -> UserError:
    """Return the error for bytes that are not UTF-8; `position`: "byte 7 of the line"."""
    return UserError(
        f"{where}: not UTF-8 (byte 0x{error.object[error.start]:02x} at {position}); convert the "
        "file to UTF-8"
    )


def _objects(path: Path, inside: range | None) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in _decoded_lines(path, inside=inside):
        if line and not line.isspace():
            yield number, _object(line, path, number)


class _RepeatedKeyError(ValueError):
    """Error for a JSON object that repeats a key: either value could be meant."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        raise _RepeatedKeyError(first_repeated(key for key, _ in pairs))
    return record


DECODER = json.JSONDecoder(object_pairs_hook=_unique)
"""Decoder that raises on an object that repeats a key."""


def check_characters(value: object, text: str) -> None:
    """Raise UnicodeEncodeError if a value holds half a character, which `text` must escape."""
    if "\\ud" in text or "\\uD" in text:
        json.dumps(value, ensure_ascii=False).encode()


def unreadable(where: str, error: ValueError | RecursionError) -> UserError:
    """Return the error for JSON that is well formed but cannot be read."""
    if isinstance(error, _RepeatedKeyError):
        return UserError(f"{where}: the key {shown(str(error))} stands twice; keep one")
    if isinstance(error, UnicodeEncodeError):
        return UserError(
            f"{where}: a \\u escape names half a character (a lone surrogate); "
            "repair the text or remove the line"
        )
    return UserError(f"{where}: JSON that cannot be read ({error}); repair or remove the line")


def _object(line: str, path: Path, number: int) -> dict[str, Any]:
    where = f"{path}:{number}"
    try:
        value = DECODER.decode(line)
        if "\\u" in line:
            check_characters(value, line)
    except json.JSONDecodeError as error:
        raise UserError(_malformed(line, where, error)) from error
    except (ValueError, RecursionError) as error:
        raise unreadable(where, error) from error
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
        "write one complete JSON object a line (jq -c . makes lines of objects over several lines)"
    )
