"""Tensors by name, out of safetensors and out of pickles that hold nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from helpers.pickles import Bomb
from quarry.errors import UserError
from quarry.models.weight_files import read_shapes, read_tensors

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2], dtype=torch.int64)}


def saved(folder: Path, kind: str) -> Path:
    file = folder / f"weights.{kind}"
    if kind == "safetensors":
        save_file(TENSORS, file)
    else:
        torch.save(TENSORS, file)
    return file


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_tensors_and_shapes_come_back(tmp_path: Path, kind: str) -> None:
    file = saved(tmp_path, kind)
    assert read_shapes(file) == {"a": (2, 3), "b": (2,)}
    found = read_tensors(file)
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


@pytest.mark.parametrize("read", [read_shapes, read_tensors])
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize("damage", ["empty", "cut", "other", "missing"])
def test_a_damaged_file_is_refused_by_name(
    tmp_path: Path, kind: str, damage: str, read: object
) -> None:
    file = saved(tmp_path, kind)
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        changed = {"empty": b"", "cut": content[: len(content) // 2], "other": b"what is this"}
        file.write_bytes(changed[damage])
    with pytest.raises(UserError, match=rf"weights\.{kind}: "):
        read(file)  # type: ignore[operator]


@pytest.mark.parametrize("read", [read_shapes, read_tensors])
def test_a_payload_is_not_run(tmp_path: Path, read: object) -> None:
    file, mark = tmp_path / "weights.bin", tmp_path / "opened"
    torch.save({**TENSORS, "more": Bomb(mark)}, file)
    with pytest.raises(UserError, match=r"weights\.bin: holds more than weights.*safetensors"):
        read(file)  # type: ignore[operator]
    assert not mark.exists()


@pytest.mark.parametrize("content", [[torch.ones(1)], {"a": 1.0}, torch.ones(2)])
def test_a_pickle_of_something_else_is_refused(tmp_path: Path, content: object) -> None:
    file = tmp_path / "weights.bin"
    torch.save(content, file)
    with pytest.raises(UserError, match=r"weights\.bin: must hold tensors by name, found"):
        read_tensors(file)
