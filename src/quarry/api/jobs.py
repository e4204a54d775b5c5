"""Evaluate and train from Python, as the commands do; each job writes its run directory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from quarry.api.retriever import Retriever, load
from quarry.assembly.places import check_places, places_of
from quarry.config.composing import Primary, composed_job, overrides_of
from quarry.config.world_size import world_size
from quarry.errors import UserError
from quarry.runtime.disk_errors import explains_disk_errors
from quarry.runtime.run_directory import removed_if_empty
from quarry.tasks.cache import shrink
from quarry.tasks.evaluate import evaluate as evaluate_job
from quarry.tasks.train import train as train_job

TARGETS = {"train": "quarry.tasks.train.train", "eval": "quarry.tasks.evaluate.evaluate"}
"""Primary -> the task that a call from Python runs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationResult:
    """The results of an evaluation.

    Attributes:
        run_dir: holds report.md, metrics.json, rankings and plots.
        metrics: "SET/MEASURE", "mean/MEASURE" -> value, such as "scifact/ndcg_at_10".
    """

    run_dir: Path
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingResult:
    """The results of a training run.

    Attributes:
        run_dir: holds the model, its checkpoint, report.md, metrics.json and plots.
        metrics: "RETRIEVER/SET/MEASURE" -> value, of "untrained", "trained" and the baseline;
            without a benchmark "train/loss" alone.
    """

    run_dir: Path
    metrics: Mapping[str, float]

    def load(self) -> Retriever:
        """Load the trained model."""
        return load(self.run_dir)


def evaluate(path: str | Path | None, *overrides: str, **settings: Any) -> EvaluationResult:
    """Evaluate a model as `eval.py model.path=...` does: `evaluate("runs/x", benchmark="small")`.

    Args:
        path: see `load`; None for a retriever without a model: `evaluate(None, retriever="bm25")`.
        overrides: as on eval.py's command line: "benchmark.sets=[scifact]".
        settings: overrides as keywords, two underscores for a dot: `evaluation__top_k=100`.

    Raises:
        UserError: as the command would end with.
    """
    model = {} if path is None else {"model.path": str(path)}
    with _job("eval", [*overrides_of(model | settings), *overrides]) as config:
        metrics = evaluate_job(config)
        run_dir = Path(config.paths.run_dir)
    return EvaluationResult(
        run_dir=run_dir,
        metrics={name.removeprefix("val/"): value for name, value in metrics.items()},
    )


def train(*overrides: str, **settings: Any) -> TrainingResult:
    """Train as `train.py` does: `train(model="qwen-coder", trainer__max_steps=100)`.

    Args:
        overrides: as on train.py's command line: "experiment=sft_msmarco".
        settings: overrides as keywords, two underscores for a dot.

    Raises:
        UserError: as the command would end with.
    """
    with _job("train", [*overrides_of(settings), *overrides]) as config:
        metrics = train_job(config)
        return TrainingResult(run_dir=Path(config.paths.run_dir), metrics=metrics)


@contextmanager
def _job(primary: Primary, overrides: list[str]) -> Iterator[DictConfig]:
    with composed_job(primary, overrides) as config:
        if world_size(config) > 1:
            raise UserError(
                f"trainer.devices={config.trainer.devices}: a call from Python runs in its own "
                f"process (trainer.devices=1). Fix: python -m quarry {primary} ... for several "
                "ranks"
            )
        if config.study.name is not None or config.task["_target_"] != TARGETS[primary]:
            raise UserError(
                f"study={config.study.name} task={config.task['_target_']}: a call runs "
                f"one job of its own task. Fix: python -m quarry {primary} ..."
            )
        explained = explains_disk_errors(partial(places_of, config), how_to_continue=str)
        with removed_if_empty(config.paths.run_dir), explained:
            check_places(config)
            yield config
            shrink(config)
