"""Goes on with an interrupted training run, from its own configuration and last checkpoint."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from quarry.config.contract import explicit_keys
from quarry.errors import MissingPathError
from quarry.runtime.logging import logs_to, quiet_libraries
from quarry.runtime.run_directory import RunDirectory
from quarry.tasks.overrides import refuse_other_overrides
from quarry.tasks.parts import record_resume
from quarry.tasks.train import fit

HARMLESS = ("task", "run", "logger", "hydra")
"""Overrides that cannot change the result."""


def resume(config: DictConfig) -> dict[str, float]:
    """Runs `run=DIR` to its end; the weights are those of a run that was never interrupted."""
    quiet_libraries()
    run = RunDirectory.open(config.run)
    refuse_other_overrides(
        HARMLESS,
        why=f"would change the result: task=resume takes everything from {run.config}. Leave it "
        "out, or start a new run.",
    )
    if not run.checkpoint.exists():
        raise MissingPathError(
            f"{run.path} has no {run.checkpoint.relative_to(run.path)}: it was stopped before the "
            "first checkpoint. Start it again as a new run."
        )
    # unresolved: where the run lies now, and whether a person watches, may have changed
    stored = OmegaConf.load(run.config)
    assert isinstance(stored, DictConfig)
    stored.paths.run_dir = str(run.path)
    if any(key == "logger" or key.startswith("logger.") for key in explicit_keys()):
        stored.logger = config.logger
    with logs_to(run.log):
        record_resume(run)
        return fit(stored, run, checkpoint=run.checkpoint)
