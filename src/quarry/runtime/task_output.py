"""Print the output of a task: its table, paths, and one line that programs can read."""

from __future__ import annotations

import atexit
import sys

_lines: list[str] = []


def show(*paragraphs: str, result_line: str) -> None:
    """Print the paragraphs to standard output, and the result line when the process ends.

    Libraries still print while they shut down, so the line waits until then.
    """
    tell(*paragraphs)
    if not _lines:
        atexit.register(_print_lines)
    _lines.append(result_line)


def tell(*paragraphs: str) -> None:
    """Print the paragraphs to standard output, for a task that has more to do."""
    sys.stdout.write("\n" + "\n\n".join(paragraphs) + "\n\n")
    sys.stdout.flush()


def last_result_line() -> str | None:
    """Return the result line that was passed last, None if there is none."""
    return _lines[-1] if _lines else None


def _print_lines() -> None:
    sys.stderr.flush()
    sys.stdout.write("\n".join(_lines) + "\n")
    sys.stdout.flush()
