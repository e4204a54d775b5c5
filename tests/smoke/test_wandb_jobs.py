"""Jobs of a study in W&B, offline: runs of their own in one group, each with what it came to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import wandb_files
from helpers.beir_folders import write_beir_folder
from helpers.commands import Result


@pytest.fixture(scope="module")
def jobs(
    command: Callable[..., Result],
    environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path]:
    """Two evaluations as a sweep starts them, with an id in the environment that both inherit."""
    folder = tmp_path_factory.mktemp("study")
    data = write_beir_folder(folder / "mine")
    for k1 in ("0.9", "1.2"):
        result = command(
            "eval.py", "retriever=bm25", f"retriever.k1={k1}", "benchmark=folder",
            f"benchmark.path={data}", "study.name=saturation", f"study.job=k1-{k1}",
            f"hydra.run.dir={folder / k1}",
            environment={**environment, "WANDB_RUN_ID": "everyones"},
        )  # fmt: skip
        assert result.code == 0, result.err
        assert "WANDB_RUN_ID=everyones has no effect on a job of a sweep" in result.err
    return folder / "0.9", folder / "1.2"


def test_two_jobs_are_two_runs_of_one_group(jobs: tuple[Path, Path]) -> None:
    one, two = (wandb_files.identity(job) for job in jobs)
    assert (one.group, one.name, one.job_type) == ("saturation", "k1-0.9", "evaluate")
    assert (two.group, two.name, two.job_type) == ("saturation", "k1-1.2", "evaluate")
    assert len({one.id, two.id, "everyones"}) == 3
    assert one.tags == ["folder", "bm25"]


def test_an_evaluation_tells_its_results_and_its_cost(jobs: tuple[Path, Path]) -> None:
    job, _ = jobs
    metrics = json.loads((job / "metrics.json").read_text())["sets"]["mine"]["bm25"]
    stored = json.loads((job / "summary.json").read_text())
    assert stored["results"]["mine/ndcg_at_10"] == metrics["nDCG@10"] > 0
    assert stored["beside"] == {}
    cost = stored["cost"]
    assert (cost["device"], cost["num_devices"], cost["gpu_hours"]) == ("CPU", 1, 0.0)
    assert 0 < cost["device_hours"] == cost["wall_hours"] < 0.1
    assert (cost["encoding_s"], cost["training_s"], cost["tokens_per_s"]) == (0.0, 0.0, None)
    assert cost["searching_s"] > 0
    summary = wandb_files.summary(job)
    assert summary["results/mine/ndcg_at_10"] == metrics["nDCG@10"]
    assert summary["cost/searching_s"] == cost["searching_s"]
    assert wandb_files.config(job)["retriever"]["k1"] == 0.9
    ((row,),) = wandb_files.tables(job, "results_by_set")
    assert (row["retriever"], row["set"], row["documents"]) == ("bm25", "mine", 3)
    assert row["nDCG@10"] == metrics["nDCG@10"]
    (artifact,) = wandb_files.artifacts(job).values()
    assert {"metrics.json", "summary.json", "runs/mine.bm25.trec"} <= artifact.keys()
