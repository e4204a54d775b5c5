"""Keep the checkpoint before the last one until the last one has proved to be good."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quarry.errors import UserError
from quarry.runtime.files import own_target, put_in_place, remove, sync_folder, write_json
from quarry.training.stored_checkpoint import damaged_message, read_checkpoint

FACTS_FILE = "quarry.json"
"""In a folder of ZeRO's shards: what `facts` returns."""


@dataclass(frozen=True)
class CheckpointFiles:
    """The newest checkpoint of a run, and beside it the one before, while that is needed.

    A checkpoint is a file, or a link to a folder of ZeRO's shards. Whenever the process is killed
    or the machine loses power, one of the two is there, complete (see `recover`).

    Args:
        last: path of the newest checkpoint.
    """

    last: Path

    @property
    def previous(self) -> Path:
        """Path of the last checkpoint that is known to be good, while the newest is not."""
        return self.last.with_name("previous.ckpt")

    def put(self, new: Path, *, is_good: bool) -> None:
        """Replace the newest checkpoint by `new`, which lies beside it.

        Args:
            is_good: it needs no other one beside it; else the one that it replaces stays.
        """
        if is_good or not self.last.exists():
            put_in_place(new, self.last)
            self.confirm()
            return
        self._keep()
        put_in_place(new, self.last, kept=self.previous)

    def confirm(self) -> None:
        """Remove the checkpoint before the newest."""
        if not os.path.lexists(self.previous):
            return
        target = self._target_of(self.previous)
        remove(self.previous)
        if target is not None and target != self._target_of(self.last):
            shutil.rmtree(target, ignore_errors=True)

    def fall_back(self) -> None:
        """Replace the newest checkpoint by the one before."""
        bad = self._target_of(self.last)
        if _is_folder(self.last) or _is_folder(self.previous):
            remove(self.last)  # a folder can neither replace nor be replaced in one step
        self.previous.replace(self.last)
        self.previous.unlink(missing_ok=True)  # after a kill both may be names of one file
        sync_folder(self.last.parent)
        if bad is not None and bad != self._target_of(self.last):
            shutil.rmtree(bad, ignore_errors=True)

    def recover(self) -> None:
        """Give a checkpoint its name back, if a process was killed while it replaced it.

        `RunDirectory.has_checkpoint` knows the same names.
        """
        aside = self.last.with_name(f".{self.last.name}.old")
        if _is_folder(aside) and not self.last.exists():
            remove(self.last)
            aside.rename(self.last)
        if self.previous.exists() and not self.last.exists():
            self.fall_back()

    def _target_of(self, link: Path) -> Path | None:
        return own_target(link, name=self.last.name)

    def _keep(self) -> None:
        """Give the newest checkpoint its second name.

        A copy of a run directory has a folder where others have a link to one, and a file system
        may have no hard links: there it is missing under its first name until it is replaced.
        """
        if _is_folder(self.previous):
            remove(self.previous)
        if _is_folder(self.last):
            remove(self.previous)
            self.last.rename(self.previous)
        else:
            name = self.previous.with_name(f".{self.previous.name}.tmp")
            name.unlink(missing_ok=True)
            try:
                os.link(self.last, name, follow_symlinks=False)
                name.replace(self.previous)
                name.unlink(missing_ok=True)  # renaming a file to its own other name does nothing
            except OSError:
                self.last.replace(self.previous)
        sync_folder(self.last.parent)


def write_facts(folder: Path, facts: dict[str, Any]) -> None:
    """Write `facts` into a folder of shards, which can be read without unpickling any."""
    write_json(folder / FACTS_FILE, facts)


def facts(checkpoint: Path) -> dict[str, Any]:
    """Return what `LastCheckpoint` says of a checkpoint: step and origin; empty for earlier ones.

    Nothing in it is executed.

    Raises:
        UserError: the checkpoint is damaged.
    """
    if checkpoint.is_dir():
        file = checkpoint / FACTS_FILE
        try:
            found: Any = json.loads(file.read_text("utf-8")) if file.exists() else {}
        except ValueError as error:
            raise UserError(damaged_message(checkpoint, f"{file.name}: {error}")) from error
        return found if isinstance(found, dict) else {}
    stored = read_checkpoint(checkpoint, maps=True)
    callbacks = stored.get("callbacks")
    own = callbacks.get("LastCheckpoint") if isinstance(callbacks, dict) else None
    return {"step": stored.get("global_step"), **(own if isinstance(own, dict) else {})}


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
