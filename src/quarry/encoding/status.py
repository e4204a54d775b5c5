"""Show which parts of an output are done, open or damaged, without a model or its corpus."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quarry.encoding.manifest import MANIFEST
from quarry.encoding.vector_folder import VectorFolder, shard_folders
from quarry.encoding.work_folder import JOB, finished_block, has_record, partial_of
from quarry.errors import MissingPathError, UserError

State = Literal["done", "open", "damaged", "missing"]
_SHARD = re.compile(r"\.?shard-(\d+)-of-(\d+)(\.partial)?")
_BLOCK = re.compile(r"block-(\d+)\.json")


@dataclass(frozen=True, kw_only=True)
class FolderState:
    """One folder of vectors: a shard, or the output itself.

    Attributes:
        name: of the folder, "3/64" of a shard.
        what: numbers of texts or blocks, or what is wrong.
    """

    name: str
    state: State
    what: str = ""


@dataclass(frozen=True, kw_only=True)
class OutputState:
    """The states of all folders of an output, in order."""

    folders: tuple[FolderState, ...]

    @property
    def counts(self) -> Mapping[str, float]:
        """Return `encode/num_<state>` -> number of folders."""
        found = Counter(folder.state for folder in self.folders)
        states: tuple[State, ...] = ("done", "open", "damaged", "missing")
        return {f"encode/num_{state}": float(found[state]) for state in states}

    @property
    def result_line(self) -> str:
        """Return the counts for programs: "done=61 open=2 damaged=0 missing=1"."""
        return " ".join(
            f"{key.removeprefix('encode/num_')}={int(value)}" for key, value in self.counts.items()
        )


def status_of(output: Path) -> OutputState:
    """Return what of an output is done; sizes of files are compared, not their contents.

    Raises:
        MissingPathError: there is neither an output nor unfinished work.
    """
    names = [each.name for each in output.iterdir()] if output.is_dir() else []
    shards = [match for name in names if (match := _SHARD.fullmatch(name))]
    if shards and not (output / MANIFEST).exists():
        count = max(int(match[2]) for match in shards)
        states = [_shard_state(output, number, count) for number in range(count)]
        return OutputState(folders=tuple(states))
    if output.is_dir() and (output / MANIFEST).exists():
        return OutputState(folders=(_finished(output, output.name),))
    if partial_of(output).is_dir():
        return OutputState(folders=(_unfinished(partial_of(output), output.name),))
    raise MissingPathError(
        f"task.output={output}: no vectors, and no unfinished work beside it. Fix: check the path"
    )


def shown_status(output: Path, state: OutputState) -> str:
    """Return the states for people; of many finished shards only their number."""
    done = [folder for folder in state.folders if folder.state == "done"]
    rest = [folder for folder in state.folders if folder.state != "done"]
    lines = [f"{output}: {len(done)} of {len(state.folders)} folders are done"]
    if len(state.folders) <= 16:
        rest = list(state.folders)
    width = max((len(folder.name) for folder in rest), default=0)
    lines += [f"  {each.name:<{width}}  {each.state:<8} {each.what}".rstrip() for each in rest]
    return "\n".join(lines)


def _shard_state(output: Path, number: int, count: int) -> FolderState:
    name = f"{number}/{count}"
    folder = output / f"shard-{number:05d}-of-{count:05d}"
    if folder in shard_folders(output):
        return _finished(folder, name)
    if partial_of(folder).is_dir():
        return _unfinished(partial_of(folder), name)
    return FolderState(name=name, state="missing", what="not begun")


def _finished(folder: Path, name: str) -> FolderState:
    try:
        num_texts = len(VectorFolder.open(folder))
    except UserError as error:
        return FolderState(name=name, state="damaged", what=str(error))
    return FolderState(name=name, state="done", what=f"{num_texts:,} texts")


def _unfinished(folder: Path, name: str) -> FolderState:
    numbers = [int(match[1]) for each in folder.iterdir() if (match := _BLOCK.fullmatch(each.name))]
    sound = [number for number in numbers if finished_block(folder, number) is not None]
    damaged = [number for number in sorted(numbers) if number not in sound]
    assert all(has_record(folder, number) for number in damaged)
    try:
        total = json.loads((folder / JOB).read_text(encoding="utf-8"))["num_blocks"]
    except (OSError, ValueError, KeyError, TypeError):
        total = "?"
    what = f"{len(sound)} of {total} blocks are done"
    if damaged:
        what += f"; damaged, and encoded again: {', '.join(map(str, damaged[:10]))}"
    return FolderState(name=name, state="open", what=what)
