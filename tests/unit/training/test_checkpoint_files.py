"""Checkpoints after a loss of power: each rename and sync of a save is recorded, and what was not
synced is dropped, after every single one of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from quarry.errors import UserError
from quarry.training.checkpoint_files import CheckpointFiles, facts, write_facts
from quarry.training.checkpoint_io import DurableCheckpointIO

Image = dict[str, bytes | str | None]
"""Path -> content of a file, target of a link, None for a folder."""


class Disk:
    """Follows what happens below a folder; keeps, for every moment, what a loss of power leaves.

    Two disks are kept: on one, names are lost that were not synced; on the other the names are all
    there, as a journal may write them early. On both, files have what was synced of them alone.
    """

    NAMED = ("rename", "replace", "link", "symlink", "unlink", "rmdir", "mkdir")

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.images: list[Image] = []
        self._contents: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._kinds: dict[int, str] = {}
        self._alive: list[Any] = []
        for name in self.NAMED:
            patch.setattr(os, name, self._watched(getattr(os, name)))
        self._fsync = os.fsync
        patch.setattr(os, "fsync", self._synced)

    def _watched(self, do: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **settings: Any) -> Any:
            result = do(*arguments, **settings)
            self._record()
            return result

        return call

    def _synced(self, number: int) -> None:
        self._fsync(number)
        path = Path(f"/proc/self/fd/{number}").resolve()
        inode = os.fstat(number).st_ino
        self._alive.append(os.dup(number))  # so that no other file gets its inode
        if path.is_dir():
            self._names[inode] = {each.name: each.lstat().st_ino for each in path.iterdir()}
            for each in path.iterdir():
                self._note(each)
        else:
            self._contents[inode] = path.read_bytes()
        self._record()

    def _note(self, path: Path) -> None:
        inode = path.lstat().st_ino
        is_folder = path.is_dir() and not path.is_symlink()
        kind = "folder" if is_folder else "file"
        self._kinds[inode] = str(path.readlink()) if path.is_symlink() else kind

    def _record(self) -> None:
        live: Image = {}
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            if path.is_symlink():
                live[name] = str(path.readlink())
            elif path.is_dir():
                live[name] = None
            else:
                live[name] = self._contents.get(path.stat().st_ino, b"")
        synced: Image = {}
        self._durable(self.root.stat().st_ino, "", synced)
        self.images += [each for each in (live, synced) if each not in self.images[-2:]]

    def _durable(self, inode: int, prefix: str, image: Image) -> None:
        for name, each in self._names.get(inode, {}).items():
            kind = self._kinds[each]
            if kind == "folder":
                image[prefix + name] = None
                self._durable(each, f"{prefix}{name}/", image)
            else:
                image[prefix + name] = self._contents.get(each, b"") if kind == "file" else kind


def written(image: Image, folder: Path) -> Path:
    """Writes an image down."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in image.items():
        path = folder / name
        if content is None:
            path.mkdir()
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.symlink_to(content)
    return folder


def save_file(files: CheckpointFiles, step: int, *, is_good: bool) -> None:
    partial = files.last.with_name(f".step-{step}.tmp")
    state = {"global_step": step, "callbacks": {}, "weight": torch.full((100,), float(step))}
    DurableCheckpointIO().save_checkpoint(state, partial)
    files.put(partial, is_good=is_good)


def save_folder(files: CheckpointFiles, step: int, *, is_good: bool) -> None:
    partial = files.last.with_name(f".step-{step}.tmp")
    (partial / "checkpoint").mkdir(parents=True)
    for rank in range(2):
        torch.save({"weight": torch.full((100,), float(step))}, partial / f"checkpoint/{rank}.pt")
    write_facts(partial, {"step": step})
    files.put(partial, is_good=is_good)


def loaded(last: Path) -> int:
    """Reads all of a checkpoint; returns its step."""
    step: int = facts(last)["step"]
    shards = list((last / "checkpoint").iterdir()) if last.is_dir() else [last]
    assert len(shards) == (2 if last.is_dir() else 1)
    for file in shards:
        assert torch.load(file, weights_only=True)["weight"].eq(step).all()
    return step


@pytest.mark.parametrize("save", [save_file, save_folder])
def test_a_complete_state_is_left_after_a_loss_of_power_at_any_moment(
    save: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "checkpoints"
    home.mkdir()
    files = CheckpointFiles(home / "last.ckpt")
    with monkeypatch.context() as patch:
        disk = Disk(home, patch)
        save(files, 1, is_good=False)
        first = len(disk.images) - 1  # from here on there is a state
        save(files, 2, is_good=False)
        files.confirm()
        save(files, 3, is_good=False)
        files.fall_back()
        save(files, 4, is_good=True)
    assert len(disk.images) - first > 10
    steps = []
    for image in disk.images[first:]:
        left = CheckpointFiles(written(image, tmp_path / "after") / "last.ckpt")
        left.recover()
        steps.append(loaded(left.last))
    assert (steps[0], steps[-1]) == (1, 4)
    assert sorted(set(steps)) == [1, 2, 3, 4]
    assert sorted(each.name for each in home.iterdir())[0] == "last.ckpt"
    assert not (home / "previous.ckpt").exists()


@pytest.mark.parametrize("sync", ["sync", "sync_folder"])
def test_the_replay_notices_a_sync_that_is_missing(
    sync: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("runtime.files", "training.checkpoint_files"):
        monkeypatch.setattr(f"quarry.{module}.{sync}", lambda path: None, raising=False)
    with pytest.raises((AssertionError, OSError, RuntimeError, EOFError, LookupError, UserError)):
        test_a_complete_state_is_left_after_a_loss_of_power_at_any_moment(
            save_file, tmp_path, monkeypatch
        )


@pytest.mark.parametrize("save", [save_file, save_folder])
def test_the_one_before_stays_until_the_newest_is_good(
    save: Callable[..., None], tmp_path: Path
) -> None:
    files = CheckpointFiles(tmp_path / "last.ckpt")
    save(files, 1, is_good=False)
    assert not files.previous.exists()
    save(files, 2, is_good=False)
    assert (loaded(files.last), loaded(files.previous)) == (2, 1)
    files.confirm()
    assert not files.previous.exists()
    save(files, 3, is_good=False)
    save(files, 4, is_good=True)
    assert loaded(files.last) == 4
    assert len(list(tmp_path.iterdir())) == (1 if save is save_file else 2)


@pytest.mark.parametrize("save", [save_file, save_folder])
def test_falling_back_leaves_the_one_before_alone(
    save: Callable[..., None], tmp_path: Path
) -> None:
    files = CheckpointFiles(tmp_path / "last.ckpt")
    save(files, 1, is_good=False)
    save(files, 2, is_good=False)
    files.fall_back()
    assert loaded(files.last) == 1
    assert len(list(tmp_path.iterdir())) == (1 if save is save_file else 2)


def test_a_copied_folder_is_kept_and_falls_back_too(tmp_path: Path) -> None:
    files = CheckpointFiles(tmp_path / "last.ckpt")
    save_folder(files, 1, is_good=True)
    target = files.last.resolve()
    files.last.unlink()
    target.rename(files.last)  # as cp -rL leaves it
    save_folder(files, 2, is_good=False)
    assert (loaded(files.last), loaded(files.previous)) == (2, 1)
    files.fall_back()
    assert loaded(files.last) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["last.ckpt"]


def test_without_hard_links_the_name_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*_: Any, **__: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", no_link)
    files = CheckpointFiles(tmp_path / "last.ckpt")
    save_file(files, 1, is_good=False)
    save_file(files, 2, is_good=False)
    assert (loaded(files.last), loaded(files.previous)) == (2, 1)
    files.last.unlink()  # killed before it was replaced
    files.recover()
    assert loaded(files.last) == 1


def test_a_kill_after_the_second_name_was_given_loses_nothing(tmp_path: Path) -> None:
    for save in (save_file, save_folder):
        home = tmp_path / save.__name__
        home.mkdir()
        files = CheckpointFiles(home / "last.ckpt")
        save(files, 1, is_good=False)
        files._keep()  # and killed
        files.confirm()
        assert loaded(files.last) == 1
        files._keep()
        files.fall_back()
        assert loaded(files.last) == 1
        assert not os.path.lexists(files.previous)


def test_a_folder_that_was_moved_aside_gets_its_name_back(tmp_path: Path) -> None:
    files = CheckpointFiles(tmp_path / "last.ckpt")
    save_folder(files, 1, is_good=True)
    files.last.resolve().rename(tmp_path / ".last.ckpt.old")  # its link leads nowhere now
    files.recover()
    assert loaded(files.last) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["last.ckpt"]
