"""Sweeps through launchers that run jobs at once, and through a sweeper that searches."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from helpers.adapters import base_folder
from helpers.beir_folders import write_beir_folder
from helpers.commands import Result
from helpers.sweeps import jobs_of

Command = Callable[..., Result]
Environment = dict[str, str]

pytestmark = pytest.mark.timeout(240)

BM25 = ("retriever=bm25", "benchmark.split=dev", "logger=none")


def test_jobs_at_once_share_what_is_made_once(
    command: Command, environment: Environment, tmp_path: Path
) -> None:
    """BM25's ranking, and the embeddings of a model."""
    fresh = {**environment, "QUARRY_CACHE": str(tmp_path / "cache")}
    model, data = base_folder(tmp_path / "model"), write_beir_folder(tmp_path / "one")
    result = command(
        "eval.py", "-m", "seed=1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2",
        "model=local", f"model.path={model}", "baseline=bm25", "logger=none", "benchmark=folder",
        f"benchmark.path={data}", f"hydra.sweep.dir={tmp_path / 'sweep'}", environment=fresh,
        timeout_s=150,
    )  # fmt: skip
    assert result.code == 0, result.err
    jobs = jobs_of(tmp_path / "sweep")
    assert [job["status"] for job in jobs.values()] == ["finished", "finished"]
    assert len({job["result"] for job in jobs.values()}) == 1
    logs = [(tmp_path / "sweep" / name / "run.log").read_text() for name in jobs]
    assert sum("bm25: indexed" in log for log in logs) == 1
    assert sum("is cached in" in log for log in logs) == 1
    for what, number in (("queries", 2), ("corpus", 3)):
        assert sum(f"{what}: encoding {number} of {number} texts" in log for log in logs) == 1


def test_submitit_starts_jobs(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    result = command(
        "eval.py", "-m", "seed=1", "hydra/launcher=submitit_local", *BM25,
        f"hydra.sweep.dir={folder}",
    )  # fmt: skip
    assert result.code == 0, result.err
    (job,) = jobs_of(folder).values()
    assert (job["status"], job["directory"]) == ("finished", "job")
    assert job["result"] in result.out
    assert not list(folder.rglob("*.pkl"))


def test_optuna_gets_objectives_and_outlives_failed_trials(
    command: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "sweep"
    overrides = (
        "-m", "hydra/sweeper=optuna_tpe", "hydra.sweeper.n_trials=3", "retriever.k1=choice(0.1,2)",
        "benchmark.split=choice(dev,nope)", "optimized_metric=stdlib_code/ndcg_at_10",
        *(one for one in BM25 if "split" not in one), f"hydra.sweep.dir={folder}",
    )  # fmt: skip
    result = command("eval.py", *overrides)
    jobs = jobs_of(folder)
    failed = [job for name, job in jobs.items() if "nope" in name]
    good = [job for name, job in jobs.items() if "dev" in name]
    assert failed, jobs.keys()
    assert good, jobs.keys()
    assert all("no retrieval split 'nope'" in job["error"] for job in failed)
    assert result.code == 1, result.err
    assert f"{len(failed)} of {len(jobs)} jobs did not finish" in result.err
    best = yaml.safe_load((folder / "optimization_results.yaml").read_text())
    assert best["best_value"] == max(job["objective"] for job in good)
    metrics = json.loads((folder / good[0]["directory"] / "metrics.json").read_text())
    assert good[0]["objective"] == metrics["sets"]["stdlib_code"]["bm25"]["nDCG@10"]

    # asked again, the sampler comes to the same trials: none is measured twice
    again = command("eval.py", *overrides, "study.resume=true")
    assert again.code == 1, again.err
    assert jobs_of(folder).keys() == jobs.keys()
    for name, job in jobs_of(folder).items():
        assert job["attempts"] == jobs[name]["attempts"] or job["status"] == "failed"
