"""`hydra.run.dir` of the command line, for tasks that do not write a run directory of their own."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from quarry.config.overrides import named_run_directory, warn_of_run_directory


@pytest.fixture
def hydra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What Hydra knows of a command whose directory is `tmp_path`/made."""
    (tmp_path / "made").mkdir()
    monkeypatch.chdir(tmp_path)
    cfg = OmegaConf.create(
        {"overrides": {"hydra": []}, "runtime": {"output_dir": str(tmp_path / "made")}}
    )
    before = HydraConfig.instance().cfg
    monkeypatch.setattr(HydraConfig, "get", lambda: cfg)
    HydraConfig.instance().cfg = OmegaConf.create({"hydra": {}})  # type: ignore[assignment]
    yield cfg
    HydraConfig.instance().cfg = before


JOB = OmegaConf.create({"study": {"job": "one"}})
SINGLE = OmegaConf.create({"study": {"job": None}})


@pytest.mark.parametrize("prefix", ["", "+", "++"])
def test_a_named_directory_is_found_however_it_is_written(
    prefix: str, hydra: Any, tmp_path: Path
) -> None:
    assert named_run_directory(SINGLE) is None
    hydra.overrides.hydra = ["hydra.mode=RUN", f"{prefix}hydra.run.dir=made"]
    assert named_run_directory(SINGLE) == tmp_path / "made"
    assert named_run_directory(JOB) is None, "the sweep has named it"


def test_a_task_without_files_says_so_and_leaves_no_directory(
    hydra: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hydra.overrides.hydra = ["hydra.run.dir=made"]
    with caplog.at_level(logging.WARNING):
        warn_of_run_directory(SINGLE, task="verify")
    assert f"hydra.run.dir={tmp_path / 'made'}: no effect with task=verify" in caplog.text
    assert not (tmp_path / "made").exists()
