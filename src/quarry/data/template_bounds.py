"""Bound what a chat template may be, hold and make: sizes of values, widths of formats."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jinja2 import TemplateError
from jinja2.utils import Namespace

MAX_TEMPLATE = 200_000
"""Characters of a template; published ones have up to 30,000."""

MAX_SIZE = 500_000
"""Characters and entries of a value, and the largest integer."""

MAX_PRODUCT = 100 * MAX_SIZE
"""Product of the sizes that go into one operation: no string method makes more of them."""

MAX_WORK = 4 * MAX_SIZE
"""Sum of the sizes that all operations of a rendering see; a published template takes thousands."""

STEP = 20
"""Work of an operation on nothing."""

MAX_FORMAT = 1000
"""Characters of a format, whose widths have three digits at most."""

LEFT_OUT = ("pprint", "random", "striptags", "sum", "urlize", "wordwrap")
"""Filters that take time beyond their sizes, or a random choice; no chat needs them."""


class TooLargeError(TemplateError):
    """A template exceeds a bound."""


def size_of(value: Any) -> int:
    """Return the characters and entries of a value, nested ones as often as they stand in it.

    Raises:
        TooLargeError: there are more than `MAX_SIZE`.
    """
    total, open_values = 0, [value]
    while open_values:
        one = open_values.pop()
        if isinstance(one, str | bytes | range):
            total += len(one)
        elif isinstance(one, int) and not isinstance(one, bool):
            total += abs(one)
        elif isinstance(one, Mapping):
            open_values += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple | set | frozenset | type({}.items()) | type({}.values())):
            open_values += one
        elif isinstance(one, Namespace):
            open_values.append(object.__getattribute__(one, "_Namespace__attrs"))
        total += 1
        if total + len(open_values) > MAX_SIZE:
            raise too_large("a value")
    return total


def check_format(text: str) -> None:
    """Refuse a format whose widths make a long text of a short one."""
    widths = re.findall(r"\d+", text)
    if len(text) > MAX_FORMAT or any(len(width) > 3 for width in widths) or "*" in text:
        raise too_large("a format")


def too_large(what: str) -> TooLargeError:
    return TooLargeError(f"{what} is too large (at most {MAX_SIZE:,} characters or entries)")
