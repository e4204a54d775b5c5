"""Write the table of `task=cache`."""

from __future__ import annotations

from collections.abc import Sequence

from quarry.tasks.fetch_page import aligned_table

HEADER = ("entry", "kind", "size", "last used", "source is", "source")


def cache_table(rows: Sequence[tuple[str, str, str, str, str, str]]) -> str:
    """Return the table of entries; a row has the cells of `HEADER`."""
    return aligned_table(HEADER, rows)


def readable_age(seconds: float) -> str:
    """Return how long ago something was: "now", "5 min", "3 h", "12 d"."""
    minutes = int(max(seconds, 0) // 60)
    if minutes < 1:
        return "now"
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // (24 * 60)} d"
