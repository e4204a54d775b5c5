"""Define the part of a corpus that one of several independent processes reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from quarry.errors import UserError

_SHARD = re.compile(r"(\d{1,9})/(\d{1,9})")

RUN_OF_RECORDS = 1024
"""Records that belong together where parts take turns, see `SourcePart.has_record`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourcePart:
    """One of `count` parts, which are disjoint and make up the corpus.

    Attributes:
        number: from 0, as SLURM and Kubernetes count.
        count: number of parts.
    """

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parsed(cls, text: str) -> SourcePart:
        """Return the part of `task.shard`, such as "3/64".

        Raises:
            UserError: it is no number/count, or out of range.
        """
        match = _SHARD.fullmatch(text.strip())
        if match is None:
            raise UserError(
                f"task.shard={text}: is no NUMBER/COUNT (numbers count from 0). Fix: task.shard=0/8"
            )
        number, count = int(match[1]), int(match[2])
        if number >= count:
            last = f"0/{count} to {count - 1}/{count}" if count else "COUNT is 1 or more"
            raise UserError(
                f"task.shard={text}: out of range (numbers count from 0: {last}). Fix: "
                f"task.shard={max(count, 1) - 1}/{max(count, 1)}"
            )
        return cls(number=number, count=count)

    def bounds(self, size: int) -> range:
        """Return this part's range of `size` bytes, rows or files."""
        return range(size * self.number // self.count, size * (self.number + 1) // self.count)

    def has_record(self, number: int) -> bool:
        """Return whether a record is in this part, where nobody knows how many there are."""
        return number // RUN_OF_RECORDS % self.count == self.number

    def share_of_files(self, files: Sequence[Path]) -> Iterator[tuple[Path, int, range]]:
        """Yield the files that this part's range of all their bytes touches.

        Yields:
            file, its size, and the range of its bytes that is in this part.
        """
        sizes = [file.stat().st_size for file in files]
        own, begin = self.bounds(sum(sizes)), 0
        for file, size in zip(files, sizes, strict=True):
            inside = range(max(own.start - begin, 0), min(own.stop - begin, size))
            if inside:
                yield file, size, inside
            begin += size

    def whole_files(self, files: Sequence[Path]) -> list[Path]:
        """Return the files of which the middle byte lies in this part's range of all bytes."""
        sizes = [file.stat().st_size for file in files]
        own, begin, found = self.bounds(2 * sum(sizes) + len(sizes)), 0, []
        for file, size in zip(files, sizes, strict=True):
            if begin + size in own:
                found.append(file)
            begin += 2 * size + 1
        return found
