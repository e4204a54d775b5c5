"""A run that was stopped gets its model from the checkpoint that there is, whatever its name."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import DictConfig

from quarry.assembly import saving
from quarry.assembly.saving import consolidate_if_unfinished


def test_a_checkpoint_that_waits_for_its_name_is_not_overlooked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object, **__: object) -> DictConfig:
        raise KeyboardInterrupt

    monkeypatch.setattr(saving, "read_stored_config", read)
    (tmp_path / "config.yaml").touch()
    (tmp_path / "checkpoints").mkdir()
    consolidate_if_unfinished(str(tmp_path), trusted=())  # nothing to read yet
    (tmp_path / "checkpoints" / "previous.ckpt").touch()
    with pytest.raises(KeyboardInterrupt):
        consolidate_if_unfinished(str(tmp_path), trusted=())
    assert [each.name for each in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]
