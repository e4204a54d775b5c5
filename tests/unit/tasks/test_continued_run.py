"""A run directory that a kill has left is taken up by the same command alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from quarry.errors import UserError
from quarry.tasks.continued_run import begun_or_continued_run


def config_of(folder: Path, **more: object) -> DictConfig:
    return OmegaConf.create({"paths": {"run_dir": str(folder)}, "study": {}, **more})


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A directory with a configuration and no result."""
    folder = tmp_path / "run"
    config = config_of(folder, seed=1)
    with begun_or_continued_run(config, result="teach.json") as run:
        OmegaConf.save(config, run.config)
        OmegaConf.save(config, run.resolved_config)
    return folder


def test_the_same_configuration_continues(killed: Path) -> None:
    (killed / ".scored.jsonl.1.tmp").write_text("left by a kill")
    with begun_or_continued_run(config_of(killed, seed=1), result="teach.json") as run:
        assert run.path == killed
        assert not (killed / ".scored.jsonl.1.tmp").exists()


def test_another_configuration_is_refused(killed: Path) -> None:
    with (
        pytest.raises(UserError, match=r"hydra\.run\.dir=.*other settings \(seed, task\.content\)"),
        begun_or_continued_run(
            config_of(killed, seed=2, task={"content": "code"}), result="teach.json"
        ),
    ):
        pass


def test_another_task_is_refused(killed: Path) -> None:
    with (
        pytest.raises(UserError, match="holds a run already"),
        begun_or_continued_run(
            config_of(killed, seed=1, task={"_target_": "other"}), result="teach.json"
        ),
    ):
        pass


def test_a_study_that_is_resumed_continues_its_jobs(killed: Path) -> None:
    config = config_of(killed, seed=1, study={"resume": True})
    with begun_or_continued_run(config, result="teach.json") as run:
        assert run.path == killed


def test_a_finished_run_is_refused(killed: Path) -> None:
    (killed / "teach.json").write_text("{}")
    with (
        pytest.raises(UserError, match="holds a run already"),
        begun_or_continued_run(config_of(killed, seed=1), result="teach.json"),
    ):
        pass


def test_a_damaged_configuration_is_refused(killed: Path) -> None:
    (killed / "config_resolved.yaml").write_text("{")
    with (
        pytest.raises(UserError, match="holds a run already"),
        begun_or_continued_run(config_of(killed, seed=1), result="teach.json"),
    ):
        pass
