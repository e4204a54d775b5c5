"""A run that diverges ends with a state that resumes. A resumed run continues what was begun,
alone, and writes nothing outside of its directory."""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from helpers.commands import ROOT
from quarry.config.schema import register_schemas
from quarry.errors import UserError
from quarry.training.callbacks.divergence import TrainingDivergedError
from quarry.training.checkpoint_files import facts

Task = Callable[..., Any]

HOLD = """
import fcntl, json, os, pathlib, socket, sys, psutil
file = pathlib.Path(sys.argv[1], ".lock").open("w")
fcntl.flock(file, fcntl.LOCK_EX)
own = psutil.Process()
json.dump({"host": socket.gethostname(), "pid": own.pid, "since": "then",
           "started": own.create_time()}, file)
file.flush()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Task]:
    """Does in this process what `python train.py OVERRIDES...` does."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUARRY_CACHE", str(cache))
        register_schemas()
        with initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):

            def call(*overrides: str) -> Any:
                config = compose("train", overrides=[f"paths.cache_dir={cache}", *overrides])
                return instantiate(config.task)(config)

            yield call


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    lines = (
        json.dumps({"query": f"what is {i} squared", "positives": [f"{i} times {i} is {i * i}"]})
        for i in range(16)
    )
    path.write_text("\n".join(lines) + "\n")
    return path


def settings(run: Path, data: Path, *, lr: float) -> list[str]:
    return [
        "model.path=null", "data=jsonl", f"data.path={data}", "benchmark=none", "logger=none",
        "data.num_hard_negatives=0", "data.global_batch_size=8", "trainer.max_steps=6",
        "trainer.max_epochs=100", "scheduler=constant", f"optimizer.lr={lr}",
        "trainer.accelerator=cpu", "evaluation.before_training=false",
        "callbacks.last_checkpoint.every_n_steps=1", f"paths.run_dir={run}",
    ]  # fmt: skip


def good_step(error: pytest.ExceptionInfo[TrainingDivergedError]) -> int:
    found = re.search(r"The last good state, of step (\d+), is in", str(error.value))
    assert found is not None, str(error.value)
    return int(found[1])


@pytest.fixture(scope="module")
def diverged(task: Task, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The run directory of a run with a learning rate of 1e6, and the step that it names."""
    run = tmp_path_factory.mktemp("diverged") / "run"
    with pytest.raises(TrainingDivergedError) as error:
        task(*settings(run, data, lr=1e6))
    return run, good_step(error)


@pytest.fixture
def copied(diverged: tuple[Path, int], tmp_path: Path) -> Path:
    return Path(shutil.copytree(diverged[0], tmp_path / "copied", symlinks=True))


def test_a_run_that_diverges_ends_with_a_state_that_resumes(
    task: Task, diverged: tuple[Path, int], copied: Path
) -> None:
    _, step = diverged
    last = copied / "checkpoints" / "last.ckpt"
    assert [path.name for path in last.parent.iterdir()] == ["last.ckpt"]
    stored = torch.load(last, weights_only=True)
    assert stored["global_step"] == step > 0
    assert all(weight.isfinite().all() for weight in stored["state_dict"].values())
    with pytest.raises(TrainingDivergedError) as error:  # with the rate of before, again
        task("task=resume", f"run={copied}")
    assert good_step(error) == step
    resumed = json.loads((copied / "provenance.json").read_text())["resumed"]
    assert [entry["accepted_changes"] for entry in resumed] == [[]]


def test_a_last_step_that_spoils_the_weights_does_not_count(
    task: Task, data: Path, diverged: tuple[Path, int], tmp_path: Path
) -> None:
    """The state after the step that the other run could not continue from, as the last one."""
    bad = diverged[1] + 1
    more = [f"trainer.max_steps={bad}", "callbacks.stop_on_divergence=null"]
    run = tmp_path / "run"
    with pytest.raises(TrainingDivergedError, match=f"not finite after step {bad}") as error:
        task(*settings(run, data, lr=1e6), *more)
    assert good_step(error) == bad - 1 == facts(run / "checkpoints" / "last.ckpt")["step"]
    assert not (run / "model").exists()


def test_other_data_are_refused_or_noted(
    task: Task, data: Path, copied: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reversed_data = tmp_path / "reversed.jsonl"
    reversed_data.write_text("\n".join(reversed(data.read_text().splitlines())) + "\n")
    config = copied / "config.yaml"
    config.write_text(config.read_text().replace(str(data), str(reversed_data)))
    with pytest.raises(UserError, match=r"training data .*task\.accepts_changed_data=true"):
        task("task=resume", f"run={copied}")
    assert "resumed" not in json.loads((copied / "provenance.json").read_text())
    with pytest.raises(TrainingDivergedError):
        task("task=resume", f"run={copied}", "task.accepts_changed_data=true")
    resumed = json.loads((copied / "provenance.json").read_text())["resumed"]
    assert [entry["accepted_changes"] for entry in resumed] == [["training data"]]
    assert "Continuing with changed training data" in caplog.text


def test_the_same_data_elsewhere_are_the_same(
    task: Task, data: Path, copied: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved.jsonl"
    shutil.copyfile(data, moved)
    config = copied / "config.yaml"
    config.write_text(config.read_text().replace(str(data), str(moved)))
    with pytest.raises(TrainingDivergedError):
        task("task=resume", f"run={copied}")


@pytest.mark.parametrize("name", ["resume", "export", "train"])
def test_a_run_directory_where_another_process_works_is_refused(
    task: Task, data: Path, diverged: tuple[Path, int], name: str
) -> None:
    run, _ = diverged
    command = settings(run, data, lr=1e-3) if name == "train" else [f"task={name}", f"run={run}"]
    log = (run / "run.log").read_bytes()
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=f"process {other.pid} on host .* since then"):
            task(*command)
    finally:
        other.kill()
        other.communicate()
    assert (run / "run.log").read_bytes() == log
    assert not (run / "model").exists()


def test_nothing_goes_through_the_systems_temporary_folder(
    task: Task, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    run = tmp_path / "run"
    task(*settings(run, data, lr=1e-3), "trainer.max_steps=2")
    task("task=export", f"run={run}")
    assert (run / "export").is_dir()
    assert not (tmp_path / "missing").exists()
    hidden = [path.name for path in run.rglob(".*")]
    assert hidden == [".lock"]


def test_a_checkpoint_of_before_is_resumed_with_one_warning(
    task: Task, copied: Path, caplog: pytest.LogCaptureFixture
) -> None:
    last = copied / "checkpoints" / "last.ckpt"
    stored = torch.load(last, weights_only=True)
    stored["callbacks"]["LastCheckpoint"] = {"has_stopped": False}
    torch.save(stored, last)
    with caplog.at_level(logging.WARNING), pytest.raises(TrainingDivergedError):
        task("task=resume", f"run={copied}")
    warnings = [r for r in caplog.records if "its checkpoint is of an earlier" in r.getMessage()]
    assert len(warnings) == 1
