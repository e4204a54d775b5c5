"""Files go to W&B as artifacts where they are small enough."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from quarry.errors import UserError
from quarry.training.wandb_run import WandbRun


class Kept(WandbRun):
    """Notes artifacts instead of starting a run."""

    artifacts: list[Any]

    @property
    def experiment(self) -> Any:
        return SimpleNamespace(id="abc", log_artifact=self.artifacts.append)


def logged(folder: Path, names: list[str], **more: Any) -> list[Any]:
    logger = Kept(project="p", save_dir=str(folder), offline=True, **more)
    logger.artifacts = []
    logger.log_files("results", folder, names)
    return logger.artifacts


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "runs" / "deep").mkdir(parents=True)
    (tmp_path / "runs" / "deep" / "one.trec").write_text("x" * 1000)
    (tmp_path / "metrics.json").write_text("{}")
    return tmp_path


def test_files_have_their_names_below_the_root_and_what_is_not_there_is_passed_over(
    folder: Path,
) -> None:
    (artifact,) = logged(folder, ["metrics.json", "runs", "no_such_file"])
    assert (artifact.name, artifact.type) == ("results-abc", "results")
    assert set(artifact.manifest.entries) == {"metrics.json", "runs/deep/one.trec"}
    assert artifact.manifest.entries["metrics.json"].local_path == str(folder / "metrics.json")
    assert logged(folder, ["no_such_file"]) == []


def test_what_is_too_large_stays_here_unless_it_is_asked_for(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    just_enough = 1002 / 2**30
    assert len(logged(folder, ["."], max_artifact_gib=just_enough)) == 1
    with caplog.at_level(logging.INFO):
        assert logged(folder, ["."], max_artifact_gib=just_enough * 0.999) == []
    assert "are more than logger.wandb.max_artifact_gib" in caplog.text
    assert len(logged(folder, ["."], max_artifact_gib=None)) == 1
    assert logged(folder, ["."], max_artifact_gib=0) == []


def test_a_size_below_zero_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"max_artifact_gib=-1 must be at least 0"):
        WandbRun(project="p", save_dir=str(tmp_path), max_artifact_gib=-1)
