"""Interpret values of training records: texts, lists, messages and numbers."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from quarry.data.jsonl import shown
from quarry.data.records import DOCUMENT_TEXTS
from quarry.errors import UserError

TEXT_KEYS = (*DOCUMENT_TEXTS, "content")
"""Keys of the text in an object that is a passage, or a part of a message."""

_MEDIA = ("<image>", "<video>", "<audio>")


def is_nothing(value: Any) -> bool:
    """Return whether a value is empty: null, an empty text, or a list or object of such values."""
    if isinstance(value, dict):
        return all(map(is_nothing, value.values()))
    return value is None or value == "" or (isinstance(value, list) and all(map(is_nothing, value)))


def holds_texts(value: Any) -> bool:
    """Return whether a value has a list of texts at any depth, possibly written as JSON."""
    if isinstance(value, dict):
        return any(holds_texts(each) for each in value.values())
    if isinstance(value, list):
        return any(
            holds_texts(each)
            or (isinstance(each, str) and bool(each.strip()))
            or (isinstance(each, dict) and any(isinstance(each.get(key), str) for key in TEXT_KEYS))
            for each in value
        )
    return isinstance(value, str) and value[:1] == "[" and holds_texts(list_of_cell(value))


def is_conversation(value: Any) -> bool:
    """Return whether a value is a list of messages, as chats are written."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(each, dict) and "role" in each for each in value)
    )


def message_text(messages: Sequence[Mapping[str, Any]], where: str) -> str:
    """Return the text of a conversation of one message.

    Raises:
        UserError: there are more messages, or the message has something else than text.
    """
    roles = [str(message["role"]) for message in messages]
    if len(messages) != 1:
        raise UserError(
            f"{where}: {len(messages)} messages ({', '.join(roles)}); one is encoded. Fix: remove "
            "the others; what a system message says to all queries is prompt.query=TEMPLATE"
        )
    content = messages[0].get("content")
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        content = content[0].get("text")  # a part: {"type": "text", "text": ...}
    if not isinstance(content, str):
        raise UserError(f"{where}: the message's content is no text; texts alone are read")
    if any(tag in content for tag in _MEDIA):
        raise UserError(f"{where}: holds an image, a video or a sound; texts alone are read")
    return content


def list_of_cell(cell: str) -> Any:
    """Return the list that a cell of CSV holds as JSON; any other cell is returned as text.

    Raises:
        ValueError: the cell is a list in Python's notation, not JSON's.
    """
    text = cell.strip()
    if text[:1] != "[" or text[-1:] != "]":
        return cell
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        if _is_python_list(text):
            raise ValueError("a list of Python's, not of JSON's") from None
        return cell
    is_list = all(each is None or isinstance(each, str | dict | list) for each in found)
    return found if is_list else cell


def list_of_numbers(value: Any) -> list[Any]:
    """Return a list of numbers, which CSV writes as JSON; a single number becomes a list."""
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return [value]
    return value if isinstance(value, list) else [value]


def finite_number(value: Any, where: str) -> float:
    """Return a score as a float, NaN where it is null.

    Raises:
        UserError: it is not a finite number.
    """
    if value is None:
        return math.nan
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{where}: {shown(value)} is no score; it must be a finite number")
    return number


def _is_python_list(text: str) -> bool:
    try:
        return isinstance(ast.literal_eval(text), list)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False
