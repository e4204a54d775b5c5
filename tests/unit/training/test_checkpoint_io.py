"""Lightning writes checkpoints beside their target, whole or not at all."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from helpers.training import OneNumber, loader_of, quiet_trainer
from quarry.training.checkpoint_io import DurableCheckpointIO, save_durably


def saved(folder: Path, *callbacks: pl.Callback) -> Path:
    trainer = quiet_trainer(*callbacks)
    save_durably(trainer.strategy)
    trainer.fit(OneNumber(lambda weight, x: weight * x), loader_of([torch.tensor(1.0)]))
    trainer.save_checkpoint(folder / "new" / "one.ckpt")
    return folder / "new" / "one.ckpt"


def test_a_trainer_saves_beside_the_target_and_loads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    path = saved(tmp_path)
    assert [file.name for file in path.parent.iterdir()] == ["one.ckpt"]
    state = torch.load(path, weights_only=True)
    assert state["state_dict"]["weight"].item() == 0.5
    module = OneNumber(lambda weight, x: weight * x)
    trainer = quiet_trainer(max_epochs=2)
    save_durably(trainer.strategy)
    trainer.fit(module, loader_of([torch.tensor(1.0)]), ckpt_path=path)
    assert module.weight.item() == 0.0


def test_two_saves_of_one_state_have_the_same_bytes(tmp_path: Path) -> None:
    state = {"weight": torch.arange(10.0)}
    for name in ("a.ckpt", "b.ckpt"):
        DurableCheckpointIO().save_checkpoint(state, tmp_path / name)
    assert (tmp_path / "a.ckpt").read_bytes() == (tmp_path / "b.ckpt").read_bytes()


def test_a_save_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "one.ckpt"
    path.write_bytes(b"old")

    def half(content: Any, file: Any) -> None:
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="disk full"):
        DurableCheckpointIO().save_checkpoint({}, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_plugin_of_the_user_stays() -> None:
    class Own(TorchCheckpointIO):
        pass

    own = Own()
    trainer = quiet_trainer(plugins=[own])
    save_durably(trainer.strategy)
    assert trainer.strategy.checkpoint_io is own
    trainer = quiet_trainer()
    save_durably(trainer.strategy)
    assert isinstance(trainer.strategy.checkpoint_io, DurableCheckpointIO)
