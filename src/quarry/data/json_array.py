"""Read the objects of a JSON array one by one, from a file of any size."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from json.decoder import WHITESPACE  # type: ignore[attr-defined]
from pathlib import Path
from typing import Any

from quarry.data.jsonl import (
    DECODER,
    check_characters,
    has_nul,
    has_return,
    is_not_utf8,
    open_binary,
    shown,
    unreadable,
)
from quarry.errors import UserError

BLOCK_BYTES = 1 << 20

_LONGEST_TOKEN = 16
"""Bound of the length of a literal or escape: an error nearer to the end may be a cut token."""

_NUL, _NEWLINE, _LONE_RETURN = "\0", "\n", re.compile(r"\r(?!\n)")

_JQ = "jq -c '.[]' makes lines of an array"


def is_json_array(file: Path) -> bool:
    """Return whether the first character of a file, plain or gzipped, opens a JSON array.

    Raises:
        UserError: a damaged gzip file, or a file that cannot be read.
    """
    with open_binary(file, lambda: 1) as opened:
        head = opened.read(1024).removeprefix(codecs.BOM_UTF8)
        while head and not head.strip():
            head = opened.read(BLOCK_BYTES)
    return head.lstrip().startswith(b"[")


def read_json_array(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each object of an array, with the line that it begins on (from 1).

    Memory holds the text of about two objects and one block of 1 MiB; an unclosed string reads
    the rest of the file. The time is linear in the size of the file.

    Raises:
        UserError: while iterating, for what `jsonl.read_jsonl` refuses in an object, for an entry
            that is not an object, for a file that ends early or has more text after the array.
    """
    text = _Text(file)
    text.take("[", "an array")
    number = 0
    is_open = text.next_character() != "]"
    while is_open:
        number += 1
        yield _object(text, number)
        is_open = text.next_character() != "]"
        if is_open:
            text.take(",", f"',' or ']' after record {number}")
    text.take("]", "the end of the array")
    if text.next_character():
        raise UserError(
            f"{text.where}: more text behind the end of the array: {text.excerpt()}. Fix: keep one "
            f"array in a file, or write one object a line ({_JQ})"
        )


class _Text:
    """Cursor in the text of a file that reads on as needed and knows its line."""

    def __init__(self, file: Path) -> None:
        self.held = ""
        self.position = 0
        self.line = 1
        self._file = file
        self._blocks = _blocks(file)

    @property
    def where(self) -> str:
        return f"{self._file}:{self.line}"

    def next_character(self) -> str:
        """Move to the next character that is not whitespace and return it; "" at the end."""
        while True:
            self.move_to(WHITESPACE.match(self.held, self.position).end())
            if self.position < len(self.held):
                return self.held[self.position]
            if not self.read_more():
                return ""

    def take(self, character: str, wanted: str) -> None:
        """Skip whitespace, then consume the expected character.

        Raises:
            UserError: the next character is another one.
        """
        found = self.next_character()
        if found != character:
            fact = f"begins with {self.excerpt()}" if found else "is cut off: the file ends"
            raise UserError(
                f"{self.where}: malformed JSON array, {wanted} is expected, what follows {fact}. "
                "Fix: repair it, or write the file again"
            )
        self.move_to(self.position + 1)

    def move_to(self, position: int) -> None:
        self.line += self.held.count("\n", self.position, position)
        self.position = position

    def read_more(self) -> bool:
        """At least double the unread text; return False at the end of the file.

        Doubling keeps the rescans of a long object linear.
        """
        parts = [self.held[self.position :]]
        wanted = len(parts[0])
        for block in self._blocks:
            parts.append(block)
            wanted -= len(block)
            if wanted <= 0:
                break
        self.held = "".join(parts)
        self.position = 0
        return len(parts) > 1

    def excerpt(self) -> str:
        return shown(self.held[self.position : self.position + 40])


def _object(text: _Text, number: int) -> tuple[int, dict[str, Any]]:
    """Return the next object and the line that it begins on."""
    first = text.next_character()
    if first == "]":
        raise UserError(
            f"{text.where}: malformed JSON array, ',' stands before its end. Fix: remove that comma"
        )
    if first not in ("{", ""):
        raise UserError(
            f"{text.where}: record {number} of the array is not an object, it begins with "
            f"{text.excerpt()}. Fix: give each record keys: "
            '{"query": "...", "positive": "..."}'
        )
    line = text.line
    while True:
        start = text.position
        try:
            value, end = DECODER.raw_decode(text.held, start)
            if text.held.find("\\u", start, end) >= 0:
                check_characters(value, text.held[start:end])
        except json.JSONDecodeError as error:
            if _may_be_cut(error, text) and text.read_more():
                continue
            raise _malformed(text, number, line, error) from error
        except (ValueError, RecursionError) as error:
            raise unreadable(f"{text.where} (record {number} of the array)", error) from error
        text.move_to(end)
        return line, value


def _may_be_cut(error: json.JSONDecodeError, text: _Text) -> bool:
    """Return whether more text could fix the error.

    Without this check any malformed file would be read to its end.
    """
    return _is_in_string(error) or error.pos > len(text.held) - _LONGEST_TOKEN


def _is_in_string(error: json.JSONDecodeError) -> bool:
    return error.msg.startswith("Unterminated string")


def _malformed(text: _Text, number: int, line: int, error: json.JSONDecodeError) -> UserError:
    begin = f"record {number} of the array, which begins on line {line}"
    rest = text.held[error.pos :].rstrip()
    if _may_be_cut(error, text) and not rest.endswith(("]", "}")):
        text.move_to(len(text.held))
        return UserError(
            f"{text.where}: the file ends inside {begin}: it is cut off. Fix: fetch or write it "
            "again"
        )
    text.move_to(error.pos)
    return UserError(
        f"{text.where}: malformed JSON ({error.msg}) at {text.excerpt()} in {begin}. "
        "Fix: repair it, or write the file again"
    )


def _blocks(file: Path) -> Iterator[str]:
    """Yield the text of a file with its line ends; a byte order mark is dropped."""
    line, num_bytes = 1, 0
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    held = ""
    with open_binary(file, lambda: line) as opened:
        is_last = False
        while not is_last:
            raw = opened.read(BLOCK_BYTES)
            is_last = not raw
            num_bytes += len(raw)
            try:
                text = held + decoder.decode(raw, final=is_last)
            except UnicodeDecodeError as error:
                number = line + error.object.count(b"\n", 0, error.start)
                position = f"byte {num_bytes - len(error.object) + error.start} of the file"
                raise is_not_utf8(f"{file}:{number}", error, position) from error
            # a carriage return at the end waits for the character that follows
            held = "\r" if text.endswith("\r") and not is_last else ""
            text = text.removesuffix(held)
            _check(text, file, line)
            line += text.count("\n")
            yield text


def _check(text: str, file: Path, line: int) -> None:
    """Raise on characters that a line of JSONL must not hold either."""
    if _NUL in text:
        raise has_nul(f"{file}:{line + text.count(_NEWLINE, 0, text.index(_NUL))}")
    if "\r" in text and (lone := _LONE_RETURN.search(text)):
        raise has_return(f"{file}:{line + text.count(_NEWLINE, 0, lone.start())}")
