"""What a task prints: its table, where things are, and one line that programs can read."""

from __future__ import annotations

import atexit
import sys


def show(*paragraphs: str, result_line: str) -> None:
    """Prints the paragraphs to standard output; the result line comes last, when all else is done.

    Libraries still speak while they shut down, so the line waits for the end of the process.
    """
    sys.stdout.write("\n" + "\n\n".join(paragraphs) + "\n\n")
    sys.stdout.flush()
    atexit.register(_print_line, result_line)


def _print_line(line: str) -> None:
    sys.stderr.flush()
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
