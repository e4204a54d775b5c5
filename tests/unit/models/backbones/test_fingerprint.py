"""Two model folders have one digest only if every byte that matters is the same."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.models import tiny_folder
from quarry.errors import UserError
from quarry.models.backbones import fingerprint
from quarry.models.backbones.fingerprint import (
    is_known_as,
    weights_digest,
    weights_fingerprint,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_folder(tmp_path / "model")


def digest(folder: Path) -> str:
    return weights_digest(str(folder), memo=folder.parent / "memo")


def change_one_number(folder: Path) -> None:
    """The last of the embedding table: more than what the quick fingerprint reads."""
    tensors = load_file(folder / "model.safetensors")
    tensors["embed_tokens.weight"][-1, -1] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


CHANGES: dict[str, Callable[[Path], object]] = {
    "one number": change_one_number,
    "the configuration": lambda folder: (folder / "config.json").write_text(
        (folder / "config.json").read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1')
    ),
    "an adapter's scale": lambda folder: (folder / "adapter_config.json").write_text("{}"),
    "code": lambda folder: (folder / "modeling.py").write_text("x = 1"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_shows(folder: Path, change: str) -> None:
    before = digest(folder)
    assert digest(folder) == before
    CHANGES[change](folder)
    assert digest(folder) != before


def test_the_quick_fingerprint_would_miss_it(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["embed_tokens.weight"] = torch.zeros(128, 64)  # 32 KiB, of which 4 are read
    save_file(tensors, folder / "model.safetensors")
    before, quick = digest(folder), weights_fingerprint(str(folder))
    change_one_number(folder)
    assert weights_fingerprint(str(folder)) == quick
    assert digest(folder) != before


def test_where_it_lies_and_what_else_lies_there_does_not_matter(folder: Path) -> None:
    before = digest(folder)
    (folder / "README.md").write_text("a model")
    assert digest(folder.rename(folder.with_name("elsewhere"))) == before


def test_files_are_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest(folder)

    def refuse(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(fingerprint.hashlib, "file_digest", refuse)
    assert digest(folder) == before
    os.utime(folder / "config.json", (1, 1))
    with pytest.raises(AssertionError, match="read again"):
        digest(folder)


def test_a_memo_that_cannot_be_written_is_done_without(folder: Path) -> None:
    (folder.parent / "memo").write_text("no folder")
    assert digest(folder) == weights_digest(str(folder), memo=folder.parent / "other")


@pytest.mark.parametrize("claimed", [2**60, 200_000_000, 5000])
def test_a_header_larger_than_its_file_or_the_limit_is_refused_unread(
    tmp_path: Path, claimed: int
) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(claimed.to_bytes(8, "little") + b"{}")
    (tmp_path / "config.json").write_text("{}")
    if claimed == 200_000_000:
        os.truncate(file, 2**40)
    with pytest.raises(UserError, match=rf"{file}: its header claims {claimed:,} bytes"):
        weights_fingerprint(str(tmp_path))


def test_weights_are_known_without_being_read(folder: Path) -> None:
    memo = folder.parent / "memo"
    assert not is_known_as(folder, ["x"], memo=memo)
    known = digest(folder)
    assert is_known_as(folder, ["x", known], memo=memo)
    assert not is_known_as(folder, ["x"], memo=memo)
    (folder / "config.json").write_text("{}")
    assert not is_known_as(folder, [known], memo=memo)
