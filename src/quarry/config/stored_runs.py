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

MODEL_FILES = ("config.json", "adapter_config.json", "modules.json")
"""A folder with none of them holds no model."""


def check_stored_run(config: DictConfig, *, task: str) -> None:
    """Refuse a path that is no run directory, and a stored configuration with untrusted targets.

    Tasks that read no run pass.

    Args:
        config: of the present call, with `run`.
        task: the function of the task, as `conf/task` names it.

    Raises:
        UserError: see `RunDirectory.open` and `read_stored_config`.
    """
    if task == EXPORT:
        if config.run is None:
            return  # the task says so
        run = RunDirectory.shared(Path(config.run).expanduser())
        if not run.path.is_dir():
            raise MissingPathError(f"run={config.run}: no such folder. Fix: run=RUN_DIR")
        names = (run.model.name, *MODEL_FILES)
        if not run.has_checkpoint and not any((run.path / name).exists() for name in names):
            raise MissingPathError(
                f"run={config.run}: is neither a run directory nor a model folder (it has no "
                f"checkpoint, and none of {', '.join(names)}). Fix: run=DIR of one"
            )
        if run.model.exists() or not run.has_checkpoint:
            return  # of a model folder nothing is built from a configuration
        stored = run.config
    elif task in (RESUME, RESCORE):
        run = RunDirectory.open(config.run)
        stored = run.config if task == RESUME else run.resolved_config
    else:
        return
    read_stored_config(stored, trusted=trusted_packages(config))
