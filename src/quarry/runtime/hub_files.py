"""Describe as data what a part of a run reads from the Hub: files of a repository's revision."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, TypeVar

Kind = Literal["model", "dataset"]
Names = tuple[str, ...]
Reader = TypeVar("Reader", bound=Callable[..., object])

MAIN = "main"


@dataclass(frozen=True, kw_only=True, slots=True)
class HubFiles:
    """Files of one repository that are read from the Hub or from its cache.

    Attributes:
        repo: "owner/name".
        kind: kind of the repository.
        revision: branch, tag or commit; None: the newest.
        used_by: what reads them, for people.
        names: patterns of files that are read if the repository has them; a * does not match a
            slash. None: all files.
        one_of: for each entry the repository must have all files of one alternative (patterns, as
            in `names`), and the first complete alternative is read.
        skips: patterns of files that are not read; a * matches slashes, too, as in the Hub's
            `ignore_patterns`.
    """

    repo: str
    kind: Kind
    revision: str | None = None
    used_by: str
    names: Names | None = None
    one_of: tuple[tuple[Names, ...], ...] = ()
    skips: Names = ()

    @property
    def repository(self) -> tuple[Kind, str, str]:
        """Kind, name and revision: equal for files of one repository."""
        return self.kind, self.repo, self.revision or MAIN

    def chosen(self, available: Collection[str]) -> set[str]:
        """Return the files of the repository that are read."""
        patterns = ["*"] if self.names is None else [*self.names]
        for alternatives in self.one_of:
            patterns += _first(alternatives, available) or ()
        return {
            name
            for name in available
            if (self.names is None or any(_matches(name, each) for each in patterns))
            and not any(fnmatchcase(name, each) for each in self.skips)
        }

    def lacking(self, available: Collection[str]) -> list[str]:
        """Return what the repository lacks although it is required, one text per entry of
        `one_of`."""
        return [
            " or ".join(dict.fromkeys(names[0] for names in alternatives))
            for alternatives in self.one_of
            if _first(alternatives, available) is None
        ]


def grouped(files: Iterable[HubFiles]) -> list[tuple[HubFiles, ...]]:
    """Group the files by repository and revision, each in the order of first use."""
    found: dict[tuple[Kind, str, str], dict[HubFiles, None]] = {}
    for each in files:
        found.setdefault(each.repository, {})[each] = None
    return [tuple(group) for group in found.values()]


def reads_hub(files: Callable[..., tuple[HubFiles, ...]]) -> Callable[[Reader], Reader]:
    """Mark a function with another one that returns the Hub files that it reads.

    Both take the same arguments.
    """

    def mark(reader: Reader) -> Reader:
        reader.hub_files = files  # type: ignore[attr-defined]
        return reader

    return mark


def files_read_by(reader: Callable[..., object], **arguments: object) -> tuple[HubFiles, ...]:
    """Return the Hub files that a function would read with these arguments.

    Nothing if it is not marked by `reads_hub`.
    """
    files = getattr(reader, "hub_files", None)
    found: tuple[HubFiles, ...] = () if files is None else files(**arguments)
    return found


def _first(alternatives: Sequence[Names], available: Collection[str]) -> Names | None:
    for names in alternatives:
        if all(any(_matches(name, pattern) for name in available) for pattern in names):
            return names
    return None


def _matches(name: str, pattern: str) -> bool:
    return name.count("/") == pattern.count("/") and fnmatchcase(name, pattern)
