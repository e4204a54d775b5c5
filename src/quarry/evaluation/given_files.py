"""Find the run files of `task.runs`, the set that each belongs to, and the name of its system."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quarry.errors import MissingPathError, UserError
from quarry.evaluation.run_directory_files import safe_name

SUFFIXES = (".trec", ".run", ".tsv", ".txt")
"""Suffixes of run files in a folder, each also with .gz. Files that are named may have others."""

NO_RUNS = (
    "task.runs is not set: which rankings? (run files, folders or patterns). "
    "Fix: 'task.runs=[a.trec,b.trec.gz]', or by set 'task.runs={scifact:[a.trec]}'."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenFile:
    """A run file and the set that it belongs to.

    Attributes:
        path: the file.
        set_name: name of the set.
        name: name of the system: the file's name without suffix and without the set's prefix.
    """

    path: Path
    set_name: str
    name: str


def find_run_files(runs: Any, sets: Sequence[str]) -> list[GivenFile]:
    """Find the files that `task.runs` names, each once, and their sets.

    Args:
        runs: a file, a folder, a glob pattern, or a list of these; or set -> these.
        sets: names of the benchmark's sets. With one set, all files of a list belong to it; with
            several, a file belongs to the set that its name begins with (SET.NAME.trec).

    Raises:
        MissingPathError: nothing is named, or a path does not exist.
        UserError: a set does not exist, or a file belongs to none.
    """
    if not runs:
        raise MissingPathError(NO_RUNS)
    if isinstance(runs, Mapping):
        unknown = [str(name) for name in runs if str(name) not in sets]
        if unknown:
            raise UserError(
                f"task.runs: {', '.join(unknown)} is no set of the benchmark (it has "
                f"{', '.join(sets)}). Fix: name one of these, or choose the benchmark that has it."
            )
        return [
            GivenFile(path=path, set_name=str(name), name=_name_of(path, str(name)))
            for name, entries in runs.items()
            for path in _paths(entries)
        ]
    return [
        GivenFile(path=path, set_name=name, name=_name_of(path, name))
        for path in _paths(runs)
        for name in [_set_of(path, sets)]
    ]


def system_names(
    files: Sequence[GivenFile], tags: Sequence[str | None], names: Sequence[Any] | None
) -> list[str]:
    """Return the name of each file's system.

    Names are the tags if every file has one and no two files of a set share one; otherwise they
    are the names of the files.

    Args:
        tags: tags of the files.
        names: names from the user, one a file, in order; None: there are none.

    Raises:
        UserError: the number of names is not that of files, a name is empty, or two systems of a
            set have the same name.
    """
    paths = ", ".join(str(file.path) for file in files)
    if names is not None and len(names) != len(files):
        raise UserError(
            f"task.names={[str(name) for name in names]}: {len(names)} names for {len(files)} run "
            f"files (one each, in this order: {paths}). Fix: name all of them, or leave it out."
        )
    if names is not None:
        chosen = [str(name).strip() for name in names]
    else:
        tagged = [tag or "" for tag in tags]
        are_names = all(tagged) and not _repeated(files, tagged)
        chosen = tagged if are_names else [file.name for file in files]
    twice = _repeated(files, chosen)
    if twice or not all(chosen):
        set_name, name = twice or ("task.names", "")
        raise UserError(
            f"task.runs: two systems of {set_name} are called {name!r}, or one has no name (each "
            f"its own). Fix: task.names=[...], one for each of {paths}."
        )
    return chosen


def _repeated(files: Sequence[GivenFile], names: Sequence[str]) -> tuple[str, str] | None:
    counts = Counter((file.set_name, name) for file, name in zip(files, names, strict=True))
    return next((key for key, number in counts.items() if number > 1), None)


def _paths(entries: Any) -> list[Path]:
    """Return the files in the order in which they are named; those of a pattern are sorted."""
    listed = entries if isinstance(entries, list | tuple) else [entries]
    if not listed or not all(
        entry and str(entry).strip() for entry in listed
    ):  # "" would be the working directory
        raise MissingPathError(NO_RUNS)
    found = {path.resolve(): path for entry in listed for path in _matching(str(entry))}
    return list(found.values())


def _matching(entry: str) -> list[Path]:
    path = Path(entry).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        inside = [p for p in sorted(path.iterdir()) if p.is_file() and _is_run_file(p)]
        if not inside:
            raise MissingPathError(
                f"task.runs={entry}: the folder has no run file (names in {', '.join(SUFFIXES)}, "
                "or with .gz behind). Fix: name the files, or another folder."
            )
        return inside
    if glob.has_magic(entry):
        matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207
        if files := [match for match in matches if match.is_file()]:
            return files
        raise MissingPathError(
            f"task.runs={entry}: no file matches (a pattern with *, ? or [...]). Fix: check it "
            "against the folder."
        )
    raise MissingPathError(
        f"task.runs={entry}: there is no such file or folder. Fix: check the path; the working "
        f"directory is {Path.cwd()}."
    )


def _is_run_file(path: Path) -> bool:
    return path.name.removesuffix(".gz").endswith(SUFFIXES)


def _set_of(path: Path, sets: Sequence[str]) -> str:
    if len(sets) == 1:
        return sets[0]
    fitting = [name for name in sets if path.name.startswith(f"{safe_name(name)}.")]
    if not fitting:
        raise UserError(
            f"task.runs={path}: the file's name begins with no set (SET.NAME.trec with one of "
            f"{', '.join(sets)}). Fix: 'task.runs={{{sets[0]}:[{path}],...}}'."
        )
    return max(fitting, key=len)


def _name_of(path: Path, set_name: str) -> str:
    stem = path.name.removesuffix(".gz")
    for suffix in SUFFIXES:
        stem = stem.removesuffix(suffix)
    return stem.removeprefix(f"{safe_name(set_name)}.") or stem
