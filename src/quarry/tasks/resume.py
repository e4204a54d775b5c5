"""Resume an interrupted training run from its own configuration and last checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch
from omegaconf import DictConfig

from quarry.assembly.run_start import record_resume
from quarry.config.contract import explicit_keys
from quarry.config.logger_rules import check_loggers
from quarry.config.overrides import named_run_directory, refuse_other_overrides
from quarry.config.stored import read_stored_config
from quarry.config.world_size import device_violations, world_size, zero_stage
from quarry.distributed import world
from quarry.errors import MissingPathError, UserError
from quarry.planning.step_fit import choose_anew
from quarry.runtime.logging import logs_to, quiet_libraries
from quarry.runtime.run_directory import RunDirectory
from quarry.tasks.build_training import build_training
from quarry.tasks.train import fit
from quarry.training.callbacks.rng_state import RNGState

ON_DISK = "evaluation.corpus_on_disk"

HARMLESS = ("task", "run", "logger", "hydra", ON_DISK)
"""Overrides that cannot change the result."""


def resume(config: DictConfig, *, chooses_memory_anew: bool) -> dict[str, float]:
    """Run `run=DIR` to its end; the weights are those of a run that was never interrupted.

    Args:
        chooses_memory_anew: choose the run's `auto` memory settings again, for the current GPU.
            With other GradCache chunks, dropout draws other masks.
    """
    quiet_libraries()
    if not isinstance(chooses_memory_anew, bool):
        raise UserError(
            f"task.chooses_memory_anew={chooses_memory_anew}: no such value (true, false). Fix: "
            "leave it out, or task.chooses_memory_anew=true"
        )
    run = RunDirectory.open(config.run)
    if (named := named_run_directory(config)) not in (None, run.path):
        raise UserError(
            f"hydra.run.dir={named}: a resumed run continues in its own directory ({run.path}). "
            "Fix: leave it out"
        )
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
    # unresolved: the run directory and the terminal may have changed
    stored = read_stored_config(run.config)
    stored.paths.run_dir = str(run.path)
    if chooses_memory_anew:
        choose_anew(stored, run)
    if any(key == "logger" or key.startswith("logger.") for key in explicit_keys()):
        check_loggers(config)
        stored.logger = config.logger
    if ON_DISK in explicit_keys():  # a disk may have become full
        stored.evaluation.corpus_on_disk = config.evaluation.corpus_on_disk
    check_world_size(stored, run.checkpoint)
    if not world.is_launched_first():
        return fit(build_training(stored, run), checkpoint=run.checkpoint)
    with logs_to(run.log):
        record_resume(run)
        return fit(build_training(stored, run), checkpoint=run.checkpoint)


def check_world_size(config: DictConfig, checkpoint: Path) -> None:
    """Refuse to continue with another world size or strategy than the run was started with.

    Raises:
        UserError: devices are missing, or the checkpoint does not fit the strategy or world size.
    """
    violations = list(device_violations(config))
    stage = zero_stage(config)
    if checkpoint.is_dir() != (stage > 0):
        kind = "a folder of ZeRO's shards" if checkpoint.is_dir() else "one file"
        violations.append(
            f"{checkpoint} is {kind}, which trainer.strategy of this run does not write: it was "
            "changed since. Set it back, or start a new run"
        )
    num_written = _num_writers(checkpoint)
    if num_written != world_size(config):
        violations.append(
            f"{checkpoint} was written by {num_written} rank(s), and this run has "
            f"{world_size(config)}: resume with trainer.devices and trainer.num_nodes as they "
            "were"
        )
    if violations:
        lines = "\n".join(f"- {line}" for line in violations)
        raise UserError(f"This run cannot continue here:\n{lines}")


def _num_writers(checkpoint: Path) -> int:
    """Return the world size that wrote a checkpoint.

    Each rank stored a shard of the optimizer states, or its random number state.
    """
    if checkpoint.is_dir():
        return len(list(checkpoint.glob("checkpoint/*_optim_states.pt")))
    stored = torch.load(checkpoint, weights_only=True, mmap=True, map_location="cpu")
    return len(stored["callbacks"][RNGState.__name__]["processes"])
