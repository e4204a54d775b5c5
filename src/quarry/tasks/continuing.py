"""What to do about a run that a signal stopped, in a sentence or two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.utils import get_class
from omegaconf import DictConfig

from quarry.runtime.run_directory import RunDirectory

TRAIN, RESUME = "quarry.tasks.train.train", "quarry.tasks.resume.resume"
EVALUATE = "quarry.tasks.evaluate.evaluate"


def how_to_continue(config: DictConfig) -> str:
    """Return what is saved of the run that `config` describes, and the command that continues."""
    task = config.task.get("_target_")
    if task == RESUME:
        return f"Continue with: python train.py task=resume run={config.run}"
    if task == TRAIN:
        run = RunDirectory.shared(config.paths.run_dir)
        if run.checkpoint.exists():
            return f"Continue with: python train.py task=resume run={run.path}"
        return "There is no checkpoint yet: run the same command again, in a new run directory."
    if task == EVALUATE:
        return _about_the_store(config)
    return "No file is half-written: run the same command again."


def _about_the_store(config: DictConfig) -> str:
    retriever: Any = get_class(config.retriever["_target_"])
    if not retriever.uses_encoder:
        return "Run the same command again."
    if not config.evaluation.store:
        return "The same command starts again (evaluation.store=true would keep embeddings)."
    store = Path(config.paths.store_dir)
    return f"Embeddings so far are kept in {store}: the same command continues from there."
