"""Read and write a single override of the command line as text, in Hydra's grammar."""

from __future__ import annotations

import re

WORDS = ("null", "true", "false", "nan", "inf")
"""Texts that Hydra reads as another type."""

_PLAIN = re.compile(r"[A-Za-z/._-][A-Za-z0-9/._-]*")


def key_of(override: str) -> str:
    """Return the key or group of an override, without `+` or `~`."""
    return override.partition("=")[0].lstrip("+~")


def quoted(value: str) -> str:
    """Return a value so that Hydra's grammar reads this very text."""
    if _PLAIN.fullmatch(value) is not None and value.lower() not in WORDS:
        return value
    # a backslash means something before a quote alone
    escaped = re.sub(r'(\\*)("|$)', lambda m: m[1] * 2 + ('\\"' if m[2] else ""), value)
    return f'"{escaped}"'
