"""A run goes on with the processes that its checkpoint is of, or not at all."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "config"))
from configurations import composed, opened

from quarry.errors import MissingPathError, UserError
from quarry.tasks.resume import check_world_size, resume
from quarry.training.callbacks.rng_state import RNGState
from quarry.training.checkpoint_files import CheckpointFiles, write_facts


@pytest.fixture(scope="module", autouse=True)
def _conf() -> Iterator[None]:
    with opened():
        yield


def checkpoint_of(folder: Path, *, world_size: int, has_shards: bool) -> Path:
    """What is looked at of the one that so many processes write."""
    path = folder / "last.ckpt"
    if has_shards:
        (path / "checkpoint").mkdir(parents=True)
        for rank in range(world_size):
            (path / "checkpoint" / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").touch()
        return path
    state = RNGState().state_dict()
    torch.save({"callbacks": {"RNGState": {"processes": state["processes"] * world_size}}}, path)
    return path


@pytest.mark.parametrize("strategy", ["ddp", "zero3"])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_checkpoint_of_other_processes_is_refused(
    strategy: str, world_size: int, tmp_path: Path
) -> None:
    path = checkpoint_of(tmp_path, world_size=world_size, has_shards=strategy == "zero3")
    config = composed("train", f"strategy={strategy}", "trainer.devices=2")
    if world_size == 2:
        check_world_size(config, path)
        return
    with pytest.raises(UserError) as info:
        check_world_size(config, path)
    assert f"was written by {world_size} rank(s), and this run has 2" in str(info.value)


@pytest.mark.parametrize("written", [2, 3, None])
def test_a_stage_that_was_edited_in_the_stored_configuration_is_refused(
    written: int | None, tmp_path: Path
) -> None:
    path = checkpoint_of(tmp_path, world_size=2, has_shards=True)
    if written is not None:  # earlier versions do not say
        write_facts(path, {"step": 4, "zero_stage": written})
    config = composed("train", "strategy=zero2", "trainer.devices=2")
    if written in (2, None):
        check_world_size(config, path)
        return
    with pytest.raises(UserError, match=r"trainer\.strategy\.stage=3, and 2 is configured"):
        check_world_size(config, path)


@pytest.mark.parametrize(("strategy", "has_shards"), [("ddp", True), ("zero1", False)])
def test_a_checkpoint_of_another_strategy_is_refused(
    strategy: str, has_shards: bool, tmp_path: Path
) -> None:
    path = checkpoint_of(tmp_path, world_size=2, has_shards=has_shards)
    config = composed("train", f"strategy={strategy}", "trainer.devices=2")
    with pytest.raises(UserError, match="which trainer.strategy of this run does not write"):
        check_world_size(config, path)


def test_another_directory_than_that_of_the_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("config.yaml", "config_resolved.yaml"):
        (tmp_path / name).write_text("{}")
    named = tmp_path / "other"
    monkeypatch.setattr("quarry.tasks.resume.named_run_directory", lambda config: named)
    config = composed("train", "task=resume", f"run={tmp_path}")
    with pytest.raises(UserError) as info:
        resume(config, chooses_memory_anew=False)
    assert f"hydra.run.dir={named}: " in str(info.value)
    assert str(tmp_path) in str(info.value).partition("its own directory")[2]
    monkeypatch.setattr("quarry.tasks.resume.named_run_directory", lambda config: tmp_path)
    with pytest.raises(MissingPathError, match="stopped before the first checkpoint"):
        resume(config, chooses_memory_anew=False)


@pytest.mark.parametrize("is_first", [True, False])
def test_every_rank_reads_after_the_first_has_given_the_checkpoint_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_first: bool
) -> None:
    for name in ("config.yaml", "config_resolved.yaml"):
        (tmp_path / name).write_text("{}")
    previous = tmp_path / "checkpoints" / "previous.ckpt"
    previous.parent.mkdir()
    previous.touch()
    found = []

    def agreed(value: str) -> str:
        """Stands in for the launcher's store: rank 0 is behind its own recovery."""
        if not is_first:
            CheckpointFiles(previous.with_name("last.ckpt")).recover()
        found.append(sorted(each.name for each in previous.parent.iterdir()))
        return value

    def read(*_: object, **__: object) -> DictConfig:
        assert found == [["last.ckpt"]]
        raise KeyboardInterrupt

    monkeypatch.setattr("quarry.tasks.resume.quiet_libraries", lambda: None)  # of this process
    monkeypatch.setattr("quarry.tasks.resume.agreed_with_first", agreed)
    monkeypatch.setattr("quarry.tasks.resume.read_stored_config", read)
    monkeypatch.setattr("quarry.distributed.world.is_launched_first", lambda: is_first)
    with pytest.raises(KeyboardInterrupt):
        resume(composed("train", "task=resume", f"run={tmp_path}"), chooses_memory_anew=False)
