"""Split long documents into pieces by lines or paragraphs, with overlap."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, get_args

from quarry.errors import UserError
from quarry.types import Document

Unit = Literal["auto", "characters", "words", "none"]
Borders = Literal["lines", "paragraphs"]

_SIZE = 2000
_WORD = re.compile(r"\S+")
_PARAGRAPH_END = re.compile(r"\n[^\S\n]*\n+")


@dataclass(frozen=True, kw_only=True, slots=True)
class TextSplitter:
    """Rules by which documents are cut.

    A piece has as many lines (or paragraphs) as fit into `size`; one that is longer alone is cut
    inside, between words where that is possible.

    Attributes:
        unit: what `size` and `overlap` count: characters, words; none: documents stay as they are;
            auto: characters for a folder of text files, none elsewhere.
        size: most units in a piece.
        overlap: most units at the end of a piece that the next one repeats, in full lines; None: a
            tenth of `size`.
        borders: where a piece may end: lines, or paragraphs (blank lines between them).
    """

    unit: Unit = "auto"
    size: int = _SIZE
    overlap: int | None = None
    borders: Borders = "lines"

    def check(self) -> None:
        """Refuse rules that cannot work.

        Raises:
            UserError: names the key.
        """
        for key, known in (("unit", get_args(Unit)), ("borders", get_args(Borders))):
            if getattr(self, key) not in known:
                raise UserError(
                    f"task.splitter.{key}={getattr(self, key)}: unknown ({', '.join(known)}). "
                    f"Fix: task.splitter.{key}={known[0]}"
                )
        if self.size < 1:
            raise UserError(
                f"task.splitter.size={self.size}: out of range (at least 1). Fix: leave it out"
            )
        if not 0 <= self._num_repeated < self.size:
            raise UserError(
                f"task.splitter.overlap={self.overlap}: a piece of task.splitter.size={self.size} "
                f"would repeat all of the one before (0 to size - 1). Fix: "
                f"task.splitter.overlap={self.size // 10}"
            )

    def settled(self, *, are_files: bool) -> TextSplitter:
        """Return the rules for a source: `auto` becomes characters or none, and None a number."""
        unit: Unit = "characters" if are_files else "none"
        return replace(
            self, unit=unit if self.unit == "auto" else self.unit, overlap=self._num_repeated
        )

    def changed(self) -> list[str]:
        """Return the rules of cutting that are not the default, as on a command line."""
        values = {
            "size": (self.size, _SIZE),
            "overlap": (self._num_repeated, self.size // 10),
            "borders": (self.borders, "lines"),
        }
        return [
            f"task.splitter.{key}={value}"
            for key, (value, default) in values.items()
            if value != default
        ]

    def pieces(self, document: Document, *, names_lines: bool = False) -> Iterator[Document]:
        """Yield the pieces of a document, named `<id>:<first line>-<last line>`; blank ones are
        left out.

        Pieces of the same lines have names of their own: `#2`, `#3` is appended.

        Args:
            names_lines: also name a document that fits by its lines; else its id stays.
        """
        fits = self.unit == "none" or self._count(document.text) <= self.size
        if fits and not names_lines:
            yield document
            return
        seen: dict[str, int] = {}
        spans = list(self.spans(document.text))
        if not spans:  # blank, and long: nothing is lost without a trace
            yield document
        for first, last, text in spans:
            name = f"{document.document_id}:{first}-{last}"
            seen[name] = seen.get(name, 0) + 1
            suffix = f"#{seen[name]}" if seen[name] > 1 else ""
            yield replace(document, document_id=f"{name}{suffix}", text=text)

    def spans(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Yield first line, last line (from 1) and text of each piece that is not blank."""
        if self.unit == "none":
            yield 1, 1 + text.rstrip("\n").count("\n"), text
            return
        units = self._units(text)
        sizes = [self._count(text[start:stop]) for start, stop in units]
        line, position = 1, 0
        for start, stop in _groups(sizes, size=self.size, overlap=self._num_repeated):
            begin, end = units[start][0], units[stop - 1][1]
            piece = text[begin:end].strip("\n")
            if not piece.strip():
                continue
            begin = text.index(piece, begin)
            line += text.count("\n", position, begin)
            position = begin
            yield line, line + piece.count("\n"), piece

    @property
    def _num_repeated(self) -> int:
        return self.size // 10 if self.overlap is None else self.overlap

    def _count(self, text: str) -> int:
        return len(text) if self.unit == "characters" else sum(1 for _ in _WORD.finditer(text))

    def _units(self, text: str) -> list[tuple[int, int]]:
        """Return start and stop of each line or paragraph; longer ones than `size` are cut."""
        if self.borders == "lines":
            ends = [match.end() for match in re.finditer("\n", text)]
        else:
            ends = [match.end() for match in _PARAGRAPH_END.finditer(text)]
        borders = [0, *(end for end in ends if end < len(text)), len(text)]
        cut = _cut_by_words if self.unit == "words" else _cut_by_characters
        units = []
        for start, stop in pairwise(borders):
            if self._count(text[start:stop]) <= self.size:
                units.append((start, stop))
            else:
                units += self._cut_inside(text, start, stop, cut)
        return units

    def _cut_inside(
        self,
        text: str,
        start: int,
        stop: int,
        cut: Callable[[str, int, int, int], list[tuple[int, int]]],
    ) -> list[tuple[int, int]]:
        """Cut a paragraph by its lines first, and a line inside."""
        if self.borders == "paragraphs" and "\n" in text[start:stop].rstrip("\n"):
            lines = [start + match.end() for match in re.finditer("\n", text[start:stop])]
            borders = [start, *(end for end in lines if end < stop), stop]
            found: list[tuple[int, int]] = []
            for one, other in pairwise(borders):
                fits = self._count(text[one:other]) <= self.size
                found += [(one, other)] if fits else cut(text, one, other, self.size)
            return found
        return cut(text, start, stop, self.size)


def _groups(sizes: Sequence[int], *, size: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Yield the units start..stop-1 of each piece; each is no larger than `size`."""
    start = 0
    while start < len(sizes):
        stop, total = start, 0
        while stop < len(sizes) and (stop == start or total + sizes[stop] <= size):
            total += sizes[stop]
            stop += 1
        yield start, stop
        if stop == len(sizes):
            return
        repeated, before = 0, stop
        # what is repeated must leave room for the next unit, or nothing new would follow
        while before - 1 > start and repeated + sizes[before - 1] <= min(
            overlap, size - sizes[stop]
        ):
            before -= 1
            repeated += sizes[before]
        start = before


def _cut_by_characters(text: str, start: int, stop: int, size: int) -> list[tuple[int, int]]:
    found = []
    while stop - start > size:
        space = max(text.rfind(mark, start + size // 2, start + size) for mark in " \t")
        end = start + size if space < 0 else space + 1
        found.append((start, end))
        start = end
    return [*found, (start, stop)]


def _cut_by_words(text: str, start: int, stop: int, size: int) -> list[tuple[int, int]]:
    ends = [match.end() for match in _WORD.finditer(text, start, stop)]
    borders = [start, *ends[size - 1 : -1 : size], stop]
    return list(pairwise(borders))
