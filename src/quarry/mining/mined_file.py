"""Write mined.jsonl in blocks, so that a call that was killed continues where it was."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from quarry.errors import UserError
from quarry.runtime.files import open_own, remove, sync_folder

MINED_FILE = "mined.jsonl"
PARTIAL_FILE = "mined.jsonl.partial"
PROGRESS_FILE = "mining_progress.jsonl"
"""A line with the key of the work, then one for each block that is on the disk."""


class MinedFile:
    """File of mined lines in a run directory, with the blocks that are finished.

    A block's lines are on the disk before its line of progress is. What follows the last line of
    progress is cut off when the work continues. The name mined.jsonl appears at the end.

    Args:
        folder: the run directory, which the caller owns.
        key: of all that the lines depend on.

    Attributes:
        num_done: examples that are finished.
        counts: what `add` counted for them.

    Raises:
        UserError: the folder has the beginning of a file with another key.
    """

    def __init__(self, folder: Path, *, key: str) -> None:
        self._final, self._partial = folder / MINED_FILE, folder / PARTIAL_FILE
        self._progress = folder / PROGRESS_FILE
        self.num_done = 0
        self.counts: Counter[str] = Counter()
        self._num_bytes = 0
        if self._final.exists() and not self._partial.exists():  # killed right before the end
            self._final.rename(self._partial)
        self._continue(key)
        self._lines = open_own(self._partial, "ab")
        self._blocks = open_own(self._progress, "ab")
        if not self.num_done:
            self._note({"key": key})

    @property
    def path(self) -> Path:
        """Return the file as it is now."""
        return self._partial

    def add(self, lines: Iterable[Mapping[str, Any]], *, stop: int, counts: Counter[str]) -> None:
        """Append the lines of the examples from `num_done` to `stop`, and sync them.

        Args:
            counts: of these examples.
        """
        for line in lines:
            self._num_bytes += self._lines.write(_encoded(line))
        _sync(self._lines)
        self.num_done = stop
        self.counts += counts
        self._note({"stop": stop, "num_bytes": self._num_bytes, "counts": dict(self.counts)})

    def finish(self) -> Path:
        """Give the file its name; return it. `clear` removes the record of the blocks."""
        self.close()
        self._partial.replace(self._final)
        sync_folder(self._final.parent)
        return self._final

    def clear(self) -> None:
        """Remove the record of the blocks: the work is done."""
        remove(self._progress)

    def discard(self) -> None:
        """Remove everything that was written."""
        self.close()
        remove(self._partial)
        self.clear()

    def close(self) -> None:
        self._lines.close()
        self._blocks.close()

    def _continue(self, key: str) -> None:
        """Read the record, and cut off what follows its last complete block."""
        begun, blocks, num_read = _read_progress(self._progress)
        if begun is None:
            remove(self._partial)
            remove(self._progress)
            return
        if begun != key:
            raise UserError(
                f"hydra.run.dir={self._final.parent}: holds the beginning of a mining with other "
                "data, settings or weights. Fix: another hydra.run.dir, or the command of before"
            )
        size = self._partial.stat().st_size if self._partial.exists() else 0
        while blocks and blocks[-1][0]["num_bytes"] > size:  # lost with the machine's power
            _, num_read = blocks.pop()
        if not blocks:
            remove(self._partial)
            remove(self._progress)
            return
        last = blocks[-1][0]
        self.num_done, self._num_bytes = last["stop"], last["num_bytes"]
        self.counts = Counter(last["counts"])
        os.truncate(self._partial, self._num_bytes)
        os.truncate(self._progress, num_read)

    def _note(self, line: Mapping[str, Any]) -> None:
        self._blocks.write(json.dumps(line).encode() + b"\n")
        _sync(self._blocks)


def _read_progress(path: Path) -> tuple[str | None, list[tuple[dict[str, Any], int]], int]:
    """Return the key, each block with the place where its line begins, and the end of the last."""
    key: str | None = None
    blocks: list[tuple[dict[str, Any], int]] = []
    num_read = 0
    content = path.read_bytes() if path.exists() else b""
    for line in content.splitlines(keepends=True):
        try:
            found = json.loads(line)
            if key is None:
                key = str(found["key"])
            else:
                _ = found["stop"], found["num_bytes"], found["counts"]
                blocks.append((found, num_read))
        except (ValueError, KeyError, TypeError):
            break
        if not line.endswith(b"\n"):
            if blocks and blocks[-1][0] is found:
                blocks.pop()
            break
        num_read += len(line)
    return key, blocks, num_read


def _encoded(line: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(line, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except UnicodeEncodeError:  # half a character (a lone surrogate) has no UTF-8
        return json.dumps(line, allow_nan=False).encode() + b"\n"


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
