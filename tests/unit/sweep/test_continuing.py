"""What is said of a run that a signal stopped, for each task."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from quarry.sweep.dispatch import how_to_continue


def said(task: str, **config: object) -> str:
    target = f"quarry.tasks.{task}.{task}"
    return how_to_continue(OmegaConf.create({"task": {"_target_": target}} | config))


def test_a_checkpoint_that_waits_for_its_name_continues_too(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "previous.ckpt").touch()
    assert said("train", paths={"run_dir": str(tmp_path)}).startswith("Continue with: ")


def test_training_continues_from_its_checkpoint(tmp_path: Path) -> None:
    paths = {"run_dir": str(tmp_path)}
    assert said("train", paths=paths).startswith("There is no checkpoint yet: run the same command")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    expected = f"Continue with: python train.py task=resume run={tmp_path}"
    assert said("train", paths=paths) == expected
    assert said("resume", run=str(tmp_path), paths={"run_dir": "."}) == expected
    own = {"_target_": "my_losses.Margin"}
    trusting = f"{expected} trusted_packages=[my_losses]"
    assert said("train", paths=paths, loss=own) == trusting
    trusted = {"trusted_packages": ["my_losses"], "paths": {"run_dir": "."}}
    assert said("resume", run=str(tmp_path), **trusted) == trusting


@pytest.mark.parametrize(
    ("retriever", "store", "expected"),
    [
        ("dense.DenseRetriever", True, "Embeddings so far are stored in /cache/embeddings: the"),
        ("fusion.HybridRetriever", True, "Embeddings so far are stored in"),
        ("dense.DenseRetriever", False, "The same command starts again (evaluation.store=true"),
        ("bm25.BM25Retriever", True, "Run the same command again."),
    ],
)
def test_evaluation_continues_from_the_store(retriever: str, store: bool, expected: str) -> None:
    found = said(
        "evaluate",
        retriever={"_target_": f"quarry.retrieval.{retriever}"},
        evaluation={"store": store},
        paths={"store_dir": "/cache/embeddings"},
    )
    assert found.startswith(expected)


@pytest.mark.parametrize("task", ["export", "report", "score", "rescore", "plan", "verify"])
def test_other_tasks_run_again(task: str) -> None:
    assert said(task) == "No file is half-written: run the same command again."
