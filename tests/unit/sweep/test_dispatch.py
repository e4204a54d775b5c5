"""What an entry point does with a configuration that is no sweep."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from quarry.errors import Interrupted, UserError
from quarry.sweep import dispatch
from quarry.sweep.dispatch import run
from quarry.sweep.job_result import JOB_FILE, JobResult

METRICS = {"val/alpha/x": 0.5, "val/mean/x": 0.25, "lost": float("nan")}


def measured(config: DictConfig) -> dict[str, float]:
    """Stands in for a task."""
    return METRICS


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Hydra says that this run is."""
    hydra = OmegaConf.structured(HydraConf)
    hydra.mode = RunMode.RUN
    hydra.runtime.output_dir = str(tmp_path)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", OmegaConf.create({"hydra": hydra}))
    return tmp_path


def config_of(folder: Path, metric: str | None = None, **study: object) -> DictConfig:
    return OmegaConf.create(
        {
            "task": {"_target_": f"{__name__}.measured", "_partial_": True},
            "paths": {"run_dir": str(folder)},
            "study": {"name": None, "job": None, "resume": False} | study,
            "optimized_metric": metric,
        }
    )


def test_a_run_by_itself_leaves_nothing_for_a_sweep(folder: Path) -> None:
    assert run(config_of(folder), program=["train.py"]) == METRICS
    assert list(folder.iterdir()) == []


def interrupted(config: DictConfig) -> dict[str, float]:
    """Stands in for a task that somebody stops."""
    signal.raise_signal(signal.SIGTERM)
    raise AssertionError("it goes on")


def test_a_signal_stops_any_task(folder: Path) -> None:
    config = config_of(folder)
    config.task._target_ = f"{__name__}.interrupted"
    with pytest.raises(Interrupted, match=r"SIGTERM\. No file is half-written: run the same"):
        run(config, program=["eval.py"])
    assert not folder.exists(), "the empty directory that Hydra made for it"


def test_a_job_leaves_its_objective_and_its_metrics(folder: Path) -> None:
    run(config_of(folder, "mean/x", job="seed-1"), program=["train.py"])
    result = JobResult.read(folder)
    assert result is not None
    assert result.objective == 0.25
    assert result.metrics == {"val/alpha/x": 0.5, "val/mean/x": 0.25}
    assert json.loads((folder / JOB_FILE).read_text())["objective"] == 0.25


def test_a_job_has_its_result_before_the_cache_is_made_smaller(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[object] = []
    monkeypatch.setattr(dispatch, "TRAIN", f"{__name__}.measured")
    monkeypatch.setattr(dispatch, "check_places", lambda config: None)
    monkeypatch.setattr(
        "quarry.tasks.cache.shrink", lambda config: found.append(JobResult.read(folder))
    )
    config = config_of(folder, job="seed-1")
    config.paths.max_cache_gib = 1.0
    run(config, program=["train.py"])
    assert len(found) == 1
    assert found[0] is not None


def test_of_several_processes_the_first_one_leaves_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    run(config_of(folder, job="seed-1"), program=["train.py"])
    assert JobResult.read(folder) is None


def test_going_on_with_a_study_has_no_effect_in_a_single_run(folder: Path) -> None:
    with pytest.raises(UserError, match=r"study\.resume=true: has no effect outside a sweep"):
        run(config_of(folder, resume=True), program=["train.py"])
    assert not folder.exists()  # Hydra had made it
