"""A checkpoint of somebody else is data: its pickles are not run, and damage is reported."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml

from helpers.earlier_run import Task, copied, tasks
from helpers.pickles import Bomb
from quarry.errors import UserError


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Task]:
    with tasks(tmp_path_factory.mktemp("cache")) as call:
        yield call


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that was stopped: resume and export both read its checkpoint."""
    path = copied(tmp_path / "asset")
    shutil.rmtree(path / "model")
    return path


def refused(task: Task, run: Path, flag: Path) -> list[str]:
    """Return what resume and export say; neither unpickles."""
    messages = []
    for name in ("resume", "export"):
        with pytest.raises(UserError) as info:
            task("train", f"task={name}", f"run={run}")
        messages.append(str(info.value))
        assert not flag.exists(), f"task={name} has run the payload"
        assert not (run / "model").exists()
    return messages


def shards(run: Path, flag: Path) -> None:
    """Replace the checkpoint by shards as DeepSpeed writes them, each of which is a payload."""
    checkpoint = run / "checkpoints" / "last.ckpt"
    checkpoint.unlink()
    folder = checkpoint / "checkpoint"
    folder.mkdir(parents=True)
    (checkpoint / "latest").write_text("checkpoint")
    for name in ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"):
        torch.save({"module": Bomb(flag)}, folder / name)


def test_a_plain_run_has_no_shards_to_read(task: Task, run: Path, tmp_path: Path) -> None:
    shards(run, tmp_path / "flag")
    for message in refused(task, run, tmp_path / "flag"):
        assert "a folder of ZeRO's shards" in message
        assert "trainer.strategy of this run does not write" in message


@pytest.mark.parametrize("strategy", ["deepspeed", "deepspeed_stage_2", None, {}])
def test_no_other_strategy_opens_shards(
    task: Task, run: Path, tmp_path: Path, strategy: object
) -> None:
    shards(run, tmp_path / "flag")
    content = yaml.safe_load((run / "config.yaml").read_text())
    content["trainer"]["strategy"] = strategy
    (run / "config.yaml").write_text(yaml.safe_dump(content))
    for message in refused(task, run, tmp_path / "flag"):
        assert "a folder of ZeRO's shards" in message


def _truncated(path: Path, _: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def _payload(path: Path, flag: Path) -> None:
    stored = torch.load(path, weights_only=True)
    torch.save({**stored, "more": Bomb(flag)}, path)


DAMAGES: dict[str, Callable[[Path, Path], object]] = {
    "truncated": _truncated,
    "empty": lambda path, _: path.write_bytes(b""),
    "text": lambda path, _: path.write_text("no checkpoint"),
    "a payload beside the weights": _payload,
    "a pickle": lambda path, flag: path.write_bytes(pickle.dumps(Bomb(flag))),
    "a list": lambda path, _: torch.save([1, 2], path),
    "no weights": lambda path, _: torch.save({"callbacks": {}}, path),
    "numbers for weights": lambda path, _: torch.save(
        {"state_dict": {"a": 1}, "callbacks": {"RNGState": {"processes": 3}}}, path
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_reported_in_one_message(
    task: Task, run: Path, tmp_path: Path, damage: str
) -> None:
    checkpoint, flag = run / "checkpoints" / "last.ckpt", tmp_path / "flag"
    DAMAGES[damage](checkpoint, flag)
    for message in refused(task, run, flag):
        assert message.startswith(str(checkpoint)), message
        assert "weights_only" not in message
        assert "Fix: " in message
        assert len(message) < 700


def test_shards_that_cannot_be_read_are_reported(run: Path) -> None:
    """Of a run whose own strategy writes them."""
    pytest.importorskip("deepspeed")
    from quarry.training.trained_state import read_trained

    folder = run / "checkpoints" / "last.ckpt"
    folder.unlink()
    folder.mkdir()
    with pytest.raises(UserError, match=r"last\.ckpt: the checkpoint is damaged"):
        read_trained(folder)
