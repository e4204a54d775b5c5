"""What a training run does with the best model so far: saves it and keeps its results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig

from quarry.assembly.model_parts import ModelParts
from quarry.assembly.saving import save_trained_model
from quarry.config.instantiate import build_named
from quarry.distributed import world
from quarry.evaluation.report import write_report
from quarry.runtime.files import write_json
from quarry.runtime.run_directory import RunDirectory
from quarry.tasks.training_reports import BEST
from quarry.training.callbacks.retrieval_evaluation import RetrievalEvaluation
from quarry.training.module import RetrievalModule


@dataclass(kw_only=True)
class BestKeeper:
    """Called by `BestModel` with a folder and what made the model the best.

    The folder becomes a saved model, a JSON file beside it says how it was chosen, and the report
    of its evaluation joins the run's under the name "best".
    """

    config: DictConfig
    run: RunDirectory
    parts: ModelParts
    module: RetrievalModule
    evaluation: RetrievalEvaluation | None = None

    def __call__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        assert self.evaluation is not None
        report = self.evaluation.last_report
        assert report is not None, "it is the last evaluation that was the best"
        save_trained_model(
            self.config,
            folder,
            factory=self.parts.factory,
            model=self.module.model,
            tokenizer=self.parts.tokenizer,
        )
        if world.is_launched_first():
            write_json(folder.with_suffix(".json"), facts)
            write_report([replace(report, retriever=BEST)], self.run.path, merge=True)


def build_callbacks(
    config: DictConfig, *, save_model: Callable[[Path, dict[str, Any]], None]
) -> list[pl.Callback]:
    """The configured callbacks; one that is written `_partial_` is told how to save a model."""
    built = build_named(config.callbacks)
    return [each(save_model=save_model) if isinstance(each, partial) else each for each in built]
