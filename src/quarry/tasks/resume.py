"""Resume an interrupted training run from its own configuration and last checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from quarry.assembly.origin import check_origin
from quarry.assembly.run_start import record_resume
from quarry.config.contract import explicit_keys
from quarry.config.hidden_values import check_stored_values
from quarry.config.logger_rules import check_loggers
from quarry.config.overrides import named_run_directory, refuse_other_overrides
from quarry.config.stored import read_stored_config
from quarry.config.stored_places import check_stored_places
from quarry.config.stored_targets import trusted_packages
from quarry.config.world_size import device_violations, foreign_checkpoint, world_size, zero_stage
from quarry.distributed import world
from quarry.distributed.launch import agreed_with_first
from quarry.errors import ConfigurationError, MissingPathError, UserError
from quarry.planning.run_disk import check_run_disk
from quarry.planning.step_fit import choose_anew
from quarry.runtime.logging import logs_to, quiet_libraries
from quarry.runtime.ownership import owned
from quarry.runtime.run_directory import RunDirectory
from quarry.tasks.build_training import build_training
from quarry.tasks.train import fit
from quarry.training.callbacks.rng_state import RNGState
from quarry.training.checkpoint_files import CheckpointFiles, facts
from quarry.training.stored_checkpoint import damaged_message, read_checkpoint

ON_DISK = "evaluation.corpus_on_disk"

RECOVERED = "recovered"
"""What a launcher's ranks hear from rank 0 before they read: the checkpoint has its name."""

HARMLESS = ("task", "run", "logger", "hydra", ON_DISK)
"""Overrides that cannot change the result."""


def resume(
    config: DictConfig, *, chooses_memory_anew: bool, accepts_changed_data: bool = False
) -> dict[str, float]:
    """Run `run=DIR` to its end; the weights are those of a run that was never interrupted.

    Args:
        chooses_memory_anew: choose the run's `auto` memory settings again, for the current GPU.
            With other GradCache chunks, dropout draws other masks.
        accepts_changed_data: continue although training data, tokenizer or base weights are not
            those that the checkpoint was trained with; the provenance says so.
    """
    quiet_libraries()
    choices = {
        "chooses_memory_anew": chooses_memory_anew,
        "accepts_changed_data": accepts_changed_data,
    }
    for name, value in choices.items():
        if not isinstance(value, bool):
            raise UserError(
                f"task.{name}={value}: no such value (true, false). Fix: leave it out, or "
                f"task.{name}=true"
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
    if not world.is_launched_first():
        agreed_with_first(RECOVERED)
        stored = _stored(config, run, chooses_memory_anew=chooses_memory_anew)
        return fit(build_training(stored, run), checkpoint=run.checkpoint)
    with owned(run.path):
        CheckpointFiles(run.checkpoint).recover()
        agreed_with_first(RECOVERED)
        stored = _stored(config, run, chooses_memory_anew=chooses_memory_anew)
        check_run_disk(stored, is_resumed=True)
        with logs_to(run.log):
            training = build_training(stored, run)
            changes = check_origin(
                facts(run.checkpoint),
                training.origin,
                run=run.path,
                accepts=accepts_changed_data,
            )
            record_resume(run, accepted_changes=changes)
            return fit(training, checkpoint=run.checkpoint)


def _stored(config: DictConfig, run: RunDirectory, *, chooses_memory_anew: bool) -> DictConfig:
    """Return the stored configuration, for this place and this command.

    Raises:
        MissingPathError: there is no checkpoint.
        UserError: see `check_world_size`.
    """
    if not run.checkpoint.exists():
        raise MissingPathError(
            f"{run.path} has no {run.checkpoint.relative_to(run.path)}: it was stopped before the "
            "first checkpoint. Fix: start it again as a new run, in another hydra.run.dir or after "
            f"rm -r {run.path}"
        )
    # unresolved: the run directory and the terminal may have changed
    stored = read_stored_config(run.config, trusted=trusted_packages(config))
    stored.paths.run_dir = str(run.path)
    if chooses_memory_anew:
        choose_anew(stored, run)
    names_loggers = any(key == "logger" or key.startswith("logger.") for key in explicit_keys())
    check_stored_places(stored, run=run.path, source=run.config, has_own_loggers=names_loggers)
    if names_loggers:
        check_loggers(config)
        stored.logger = config.logger
    if ON_DISK in explicit_keys():  # a disk may have become full
        stored.evaluation.corpus_on_disk = config.evaluation.corpus_on_disk
    check_stored_values(stored, run.config)
    check_world_size(stored, run.checkpoint)
    return stored


def check_world_size(config: DictConfig, checkpoint: Path) -> None:
    """Refuse to continue with another world size or strategy than the run was started with.

    Raises:
        ConfigurationError: devices are missing, or the checkpoint does not fit the strategy or
            world size.
    """
    violations = list(device_violations(config))
    if (problem := foreign_checkpoint(config, checkpoint)) is not None:
        violations.append(problem)
    elif (written := facts(checkpoint).get("zero_stage")) not in (None, zero_stage(config)):
        violations.append(  # earlier versions do not say
            f"{checkpoint} was written with trainer.strategy.stage={written}, and "
            f"{zero_stage(config)} is configured: it was changed since. Set it back, or start a "
            "new run"
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
        raise ConfigurationError(f"This run cannot continue here:\n{lines}")


def _num_writers(checkpoint: Path) -> int:
    """Return the world size that wrote a checkpoint.

    Each rank stored a shard of the optimizer states, or its random number state.
    """
    if checkpoint.is_dir():
        return len(list(checkpoint.glob("checkpoint/*_optim_states.pt")))
    callbacks: Any = read_checkpoint(checkpoint, maps=True).get("callbacks")
    states = callbacks.get(RNGState.__name__) if isinstance(callbacks, dict) else None
    processes = states.get("processes") if isinstance(states, dict) else None
    if not isinstance(processes, list | tuple | dict):
        raise UserError(damaged_message(checkpoint, f"it has no {RNGState.__name__}"))
    return len(processes)
