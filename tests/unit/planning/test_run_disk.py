"""A training whose checkpoints do not fit the disk is refused before it starts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import DictConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "config"))
from configurations import composed, opened

from helpers.plans import setup
from quarry.errors import UserError
from quarry.planning import run_disk
from quarry.planning.run_disk import check_run_disk

NUM_TRAINED = 1000
CHECKPOINT = 12 * NUM_TRAINED


@pytest.fixture(scope="module", autouse=True)
def _conf() -> Iterator[None]:
    with opened():
        yield


@pytest.fixture(autouse=True)
def _numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setup is that of `helpers.plans`: no model is outlined for it."""
    monkeypatch.setattr(run_disk, "planned_model", lambda spec: None)
    made = setup(num_trained=NUM_TRAINED)
    monkeypatch.setattr(run_disk, "training_setup", lambda *_: made)


def a_config(folder: Path, *overrides: str) -> DictConfig:
    config = composed("train", *overrides)
    config.paths.run_dir = str(folder / "run")
    return config


def test_what_is_written_at_its_peak_must_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need = 2 * CHECKPOINT + 4 * NUM_TRAINED
    monkeypatch.setattr(run_disk, "free_bytes", lambda _: need)
    check_run_disk(a_config(tmp_path))
    monkeypatch.setattr(run_disk, "free_bytes", lambda _: need - 1)
    with pytest.raises(UserError) as caught:
        check_run_disk(a_config(tmp_path))
    message = str(caught.value)
    assert message.startswith(f"hydra.run.dir={tmp_path}/run: this training writes 27.3 KiB (")
    assert "checkpoints/last.ckpt, twice while it is replaced: 23.4 KiB, model/: 3.9 KiB" in message
    assert "callbacks.last_checkpoint=null" in message
    assert not (tmp_path / "run").exists()
    check_run_disk(a_config(tmp_path, "callbacks.last_checkpoint=null"))


def test_a_resumed_run_needs_no_room_for_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need, had = 2 * CHECKPOINT + 4 * NUM_TRAINED, 5000
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.write_bytes(bytes(had))
    monkeypatch.setattr(run_disk, "free_bytes", lambda _: need - had)
    check_run_disk(a_config(tmp_path), is_resumed=True)
    monkeypatch.setattr(run_disk, "free_bytes", lambda _: need - had - 1)
    with pytest.raises(UserError) as caught:
        check_run_disk(a_config(tmp_path), is_resumed=True)
    assert str(caught.value).startswith(f"run={tmp_path}/run: this training writes 27.3 KiB (")
    assert "4.9 KiB of it are there" in str(caught.value)
    assert "move the directory" in str(caught.value)


def test_what_cannot_be_planned_is_left_to_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise UserError("the model is not there")

    monkeypatch.setattr(run_disk, "planned_model", fail)
    monkeypatch.setattr(run_disk, "free_bytes", lambda _: 0)
    check_run_disk(a_config(tmp_path))
