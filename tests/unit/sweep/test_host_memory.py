"""Host memory of a sweep: jobs at once that do not fit are refused, SLURM is asked for enough."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hydra import initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from quarry.config.schema import register_schemas
from quarry.errors import UserError
from quarry.sweep.host_memory import MARGIN, RANK_GIB
from quarry.sweep.inputs import Launcher
from quarry.sweep.listing import composed_sweep
from quarry.sweep.start import begin

CONF = Path(__file__).resolve().parents[3] / "conf"
TWO = ("model=qwen-base,qwen-coder", "experiment=sft_msmarco", "trainer.accelerator=auto")
SLURM = ("hydra/launcher=slurm",)
GIB = 2**30


@pytest.fixture(autouse=True)
def _conf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in ("RANK", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    register_schemas()
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        yield


def sweep(folder: Path, *overrides: str, primary: str = "train") -> DictConfig:
    return composed_sweep(primary, f"hydra.sweep.dir={folder}", *overrides)


def has_memory(monkeypatch: pytest.MonkeyPatch, gib: int) -> None:
    here = psutil.virtual_memory()._replace(available=gib * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: here)


@pytest.mark.parametrize(
    ("launcher", "number"),
    [
        ({"_target_": "x.joblib_launcher.JoblibLauncher", "n_jobs": 8}, 3),
        ({"_target_": "x.joblib_launcher.JoblibLauncher", "n_jobs": 2}, 2),
        ({"_target_": "x.joblib_launcher.JoblibLauncher", "n_jobs": None}, 1),
        ({"_target_": "hydra.BasicLauncher"}, 1),
        ({"_target_": "x.SlurmLauncher", "n_jobs": 8}, 1),
    ],
)
def test_jobs_at_once(launcher: dict[str, object], number: int) -> None:
    assert Launcher.of(OmegaConf.create(launcher)).num_jobs_at_once(3) == number


def test_all_cores_but_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    launcher = Launcher.of(OmegaConf.create({"_target_": "joblib", "n_jobs": -2}))
    assert launcher.num_jobs_at_once(9) == 3


def test_jobs_at_once_that_do_not_fit_are_refused_before_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    has_memory(monkeypatch, 240)
    at_once = (*TWO, "hydra/launcher=gpus", "hydra.launcher.n_jobs=2")
    in_memory = "evaluation.corpus_on_disk=false"
    with pytest.raises(UserError) as caught:
        begin(sweep(tmp_path / "one", *at_once, in_memory))
    text = str(caught.value)
    assert "2 jobs at once would take" in text
    assert "embeddings of the corpus" in text
    assert "hydra.launcher.n_jobs=1   # fewer jobs at once" in text
    assert "benchmark=none" in text
    assert not (tmp_path / "one" / "study.json").exists()


def test_slurm_gets_what_the_largest_job_takes(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    config = sweep(tmp_path, *TWO, *SLURM, "trainer.devices=8", "strategy=ddp")
    assert config.hydra.launcher.mem_gb is None
    begin(config)
    corpus, ids = 8_841_823 * 3584 * 4, 8 * 8_841_823 * 100
    expected = math.ceil(MARGIN * (corpus + ids) / GIB) + 8 * RANK_GIB
    assert config.hydra.launcher.mem_gb == expected
    assert instantiate(config.hydra.launcher).params["mem_gb"] == expected


def test_what_the_user_asks_of_slurm_wins(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    config = sweep(tmp_path, *TWO, *SLURM, "hydra.launcher.mem_gb=77")
    begin(config)
    assert config.hydra.launcher.mem_gb == 77


def test_slurms_own_default_where_a_plan_does_not_know(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    overrides = ("retriever=bm25", "benchmark=msmarco", "retriever.k1=0.9,1.2")
    config = sweep(tmp_path, *overrides, *SLURM, primary="eval")
    begin(config)
    assert config.hydra.launcher.mem_gb is None
