"""The model of a run that was stopped before its end, from its last checkpoint."""

from __future__ import annotations

import logging
from pathlib import Path

from quarry.config.stored import read_stored_config
from quarry.runtime.run_directory import RunDirectory
from quarry.tasks.parts import build_model_parts
from quarry.tasks.saving import save_from_checkpoint

logger = logging.getLogger(__name__)


def consolidate_if_unfinished(path: str | None) -> None:
    """Writes `model/` of a run that has a checkpoint and no model yet, on one CPU.

    Shards of ZeRO are put together. Nothing happens to any other folder; a run that goes on later
    replaces the model at its end.
    """
    if path is None:
        return
    run = RunDirectory.shared(Path(path).expanduser())
    if run.model.exists() or not (run.checkpoint.exists() and run.config.exists()):
        return
    logger.warning("%s was stopped before its end: the model is that of its checkpoint", run.path)
    stored = read_stored_config(run.config)
    stored.paths.run_dir = str(run.path)
    save_from_checkpoint(stored, run, build_model_parts(stored))
