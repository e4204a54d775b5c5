"""Check the run that a task reads, before the task imports Lightning and transformers."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from quarry.config.stored import read_stored_config
from quarry.config.stored_targets import trusted_packages
from quarry.errors import MissingPathError
from quarry.runtime.run_directory import RunDirectory

RESUME, RESCORE = "quarry.tasks.resume.resume", "quarry.tasks.rescore.rescore"
EXPORT = "quarry.tasks.export.export"


def check_stored_run(config: DictConfig, *, task: str) -> None:
    """Refuse a run that is none, or whose stored configuration chooses code; others may pass.

    Args:
        config: of the present call, with `run`.
        task: the function of the task, as `conf/task` names it.

    Raises:
        UserError: see `RunDirectory.open` and `read_stored_config`.
    """
    if task == EXPORT:
        if config.run is not None and not Path(config.run).expanduser().is_dir():
            raise MissingPathError(f"run={config.run}: no such folder. Fix: run=RUN_DIR")
        run = RunDirectory.shared(Path(config.run or "").expanduser())
        if config.run is None or run.model.exists() or not run.checkpoint.exists():
            return  # of a model folder nothing is built from a configuration
        stored = run.config
    elif task in (RESUME, RESCORE):
        run = RunDirectory.open(config.run)
        stored = run.config if task == RESUME else run.resolved_config
    else:
        return
    read_stored_config(stored, trusted=trusted_packages(config))
