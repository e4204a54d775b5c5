"""A run is refused before its task is imported; what a task may read passes."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from quarry.config.stored_runs import EXPORT, RESCORE, RESUME, check_stored_run
from quarry.errors import ConfigurationError, MissingPathError

TASKS = (RESUME, RESCORE, EXPORT)


def check(run: Path, task: str) -> None:
    config = OmegaConf.create({"run": str(run), "trusted_packages": []})
    check_stored_run(config, task=task)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    for name in ("config.yaml", "config_resolved.yaml"):
        (tmp_path / name).write_text("seed: 1\n")
    return tmp_path


@pytest.mark.parametrize("task", TASKS)
def test_a_folder_that_is_not_there_is_refused(task: str, tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match="run=.*nowhere"):
        check(tmp_path / "nowhere", task)
    check(tmp_path / "nowhere", "quarry.tasks.train.train")


@pytest.mark.parametrize("task", TASKS)
def test_code_in_the_file_that_the_task_reads_is_refused(task: str, run: Path) -> None:
    check(run, task)
    file = run / ("config_resolved.yaml" if task == RESCORE else "config.yaml")
    file.write_text("loss:\n  _target_: os.system\n")
    with pytest.raises(ConfigurationError, match=r"loss\._target_=os\.system"):
        check(run, task)


def test_an_export_of_a_model_builds_nothing_of_the_configuration(run: Path) -> None:
    (run / "config.yaml").write_text("loss:\n  _target_: os.system\n")
    (run / "model").mkdir()
    check(run, EXPORT)
