"""Errors of full and read-only disks name the folder, the room that is left, and the remedy."""

from __future__ import annotations

import errno
import os
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from helpers.disks import fill, read_only, small_disk
from quarry.errors import UserError
from quarry.runtime.disk_errors import (
    Place,
    check_place,
    disk_message,
    explains_disk_errors,
    free_bytes,
    readable_size,
)


def place(path: Path, what: str = "The cache") -> Place:
    return Place(what=what, path=path, remedy="paths.cache_dir=DIR")


@pytest.fixture
def nobody_may_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quarry.runtime.disk_errors.os.access", lambda *_: False)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_the_folder_of_a_file_is_named(tmp_path: Path, number: int) -> None:
    places = [place(tmp_path, "The cache"), place(tmp_path / "inner", "The store")]
    error = OSError(number, "Full", str(tmp_path / "inner" / "deep" / "file"))
    message = disk_message(error, places)
    assert message is not None
    assert message.startswith(f"The disk of the store, {tmp_path}/inner, became full (Full; ")
    assert message.endswith("or paths.cache_dir=DIR on a larger disk.")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"),
        ValueError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_without_a_file_the_fullest_disks_are_suspected(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = {"a": 2**20, "b": 2**40}
    monkeypatch.setattr("quarry.runtime.disk_errors.free_bytes", lambda path: free[path.name])
    message = disk_message(error, [place(tmp_path / "a"), place(tmp_path / "b")])
    assert message is not None
    assert f"{tmp_path}/a, has 1.0 MiB left (another: paths.cache_dir=DIR)." in message
    assert f"{tmp_path}/b" not in message


def test_other_errors_are_no_matter_of_disks(tmp_path: Path) -> None:
    assert disk_message(ValueError("no space in ids")) is None
    assert disk_message(FileNotFoundError(2, "No such file", str(tmp_path / "x"))) is None
    unreadable = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "x"))
    assert disk_message(unreadable, [place(tmp_path)]) is None  # where one may write


def test_a_broken_checkpoint_is_no_full_disk(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.ckpt", "w") as file:
        file.writestr("x", "y")
    with pytest.raises(RuntimeError, match=r"inline_container\.cc") as caught:
        torch.load(tmp_path / "bad.ckpt", weights_only=True)
    assert disk_message(caught.value) is None


def test_a_file_that_cannot_be_read_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "data.jsonl"
    file.touch()
    error = PermissionError(errno.EACCES, "Permission denied", str(file))
    monkeypatch.setattr("quarry.runtime.disk_errors.os.access", lambda *_: False)
    for places in ([], [place(tmp_path)]):
        message = disk_message(error, places)
        assert message is not None
        assert message.startswith(f"{file} cannot be read (Permission denied). Fix: ")
    monkeypatch.setattr("quarry.runtime.disk_errors.os.access", lambda _, mode: mode != os.W_OK)
    message = disk_message(error, [place(tmp_path)])
    assert message is not None
    assert "cannot be written to" in message


def test_a_folder_without_permission_is_named(tmp_path: Path, nobody_may_write: None) -> None:
    error = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "x" / "y"))
    message = disk_message(error, [place(tmp_path)])
    assert message is not None
    assert message.startswith(f"The cache, {tmp_path}, cannot be written to (Permission denied: ")


def test_a_cause_is_explained_with_how_to_continue(tmp_path: Path) -> None:
    error = OSError(errno.ENOSPC, "No space left", str(tmp_path / "x"))
    explained = explains_disk_errors(
        lambda: [place(tmp_path)], how_to_continue=lambda: "Continue so."
    )
    with pytest.raises(UserError) as caught, explained:
        raise RuntimeError("while saving") from error
    assert str(caught.value).endswith("What was there before is unchanged. Continue so.")
    with (
        pytest.raises(RuntimeError, match="other"),
        explains_disk_errors(list, how_to_continue=str),
    ):
        raise RuntimeError("other")


def test_a_folder_is_checked_before_anything_is_written(
    tmp_path: Path, nobody_may_write: None
) -> None:
    with pytest.raises(UserError, match=r"cannot be written to\. Fix: paths.cache_dir=DIR"):
        check_place(place(tmp_path), num_bytes=1)
    with pytest.raises(UserError, match="cannot be written to and is empty"):
        check_place(place(tmp_path), num_bytes=1, is_readable_alone=True)
    (tmp_path / "warm").touch()
    check_place(place(tmp_path), num_bytes=1, is_readable_alone=True)
    with pytest.raises(UserError, match="cannot be created"):
        check_place(place(tmp_path / "warm" / "x"), num_bytes=1)


def test_a_disk_with_too_little_room(tmp_path: Path) -> None:
    free = free_bytes(tmp_path / "not" / "there")
    check_place(place(tmp_path / "new"), num_bytes=free // 2)
    with pytest.raises(UserError, match=r"needs .* GiB, and its disk has .* free\. Nothing was"):
        check_place(place(tmp_path), num_bytes=free + 2**40)


@pytest.mark.parametrize(
    "write",
    [
        lambda file: file.write_bytes(bytes(2**20)),
        lambda file: torch.save(torch.zeros(2**18), file),
        lambda file: save_file({"a": torch.zeros(2**18)}, file),
    ],
)
def test_what_libraries_raise_on_a_full_disk_is_recognized(tmp_path: Path, write: object) -> None:
    assert callable(write)
    with small_disk(tmp_path / "small", num_bytes=2**20) as disk:
        fill(disk, leaving=2**16)
        explained = explains_disk_errors(lambda: [place(disk)], how_to_continue=str)
        with pytest.raises(UserError, match="became full"), explained:
            write(disk / "file")


def test_what_a_read_only_disk_raises_is_recognized(tmp_path: Path) -> None:
    explained = explains_disk_errors(lambda: [place(tmp_path)], how_to_continue=str)
    with read_only(tmp_path), pytest.raises(UserError, match="cannot be written to"), explained:
        (tmp_path / "file").write_text("x")


@pytest.mark.parametrize(
    ("num_bytes", "text"), [(0, "0.0 KiB"), (2**20, "1.0 MiB"), (3 * 2**30, "3.0 GiB")]
)
def test_sizes_for_people(num_bytes: int, text: str) -> None:
    assert readable_size(num_bytes) == text
