"""Fit a training step to the GPUs that are there: choose what is left to `auto`.

The choice is made once, when ranks can communicate and before weights load, from the free memory of
the fullest GPU of all. It becomes part of the stored configuration, so a resumed run keeps it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger

from quarry.config.memory_rules import AUTO
from quarry.config.resume_command import resume_command
from quarry.config.stored import read_unchecked_config
from quarry.distributed import world
from quarry.errors import UserError
from quarry.models.memory import free_device_bytes, gib
from quarry.models.model_spec import ModelSpec
from quarry.planning.inputs import asked_choice, planned_step, planned_training
from quarry.planning.machine import CLOSE
from quarry.planning.memory_fit import AskedChoice, fitted_setup
from quarry.planning.setup import planned_model, training_setup
from quarry.planning.step_memory import TrainingSetup, step_memory
from quarry.planning.training_refusal import refusal_for_memory
from quarry.planning.workload import planned_workload
from quarry.runtime.files import write_json, write_text
from quarry.runtime.run_directory import RunDirectory
from quarry.training.memory_choice import MemoryChoice

logger = logging.getLogger(__name__)

RECORD = "memory_choice"
"""Key of provenance.json."""

KEYS = ("model.gradient_checkpointing", "data.grad_cache_chunk_tokens")


class StepFit:
    """Settle gradient checkpointing and the GradCache chunk of a run, alike on every rank.

    Keys that the configuration states are left as they are, here and in the run directory.

    Args:
        config: of the run; its open keys get the choice.
        run: its stored configuration gets the choice as well, and its provenance the record.
        spec: of its model.
    """

    def __init__(self, config: DictConfig, run: RunDirectory, spec: ModelSpec) -> None:
        self.config = config
        self.run = run
        self.spec = spec

    def __call__(self, device: torch.device, loggers: Sequence[Logger] = ()) -> MemoryChoice:
        """Return the choice; a collective operation, to be called on all ranks.

        Args:
            device: that this rank computes on.
            loggers: receive the configuration again, with the choice.

        Raises:
            UserError: nothing fits; or a resumed run's choice does not fit here.
        """
        asked = asked_choice(self.config)
        if device.type != "cuda":
            choice = asked.plain
            if asked.is_open:
                self._settle(choice, _record(asked, choice), loggers)
            return choice
        free = min(world.gathered(free_device_bytes(device)))
        if asked.is_open:
            choice, record = world.first_does(lambda: self._chosen(asked, free))
            self._settle(choice, record, loggers)
            return choice
        world.first_does(lambda: self._check_record(free))
        return asked.plain

    def _chosen(self, asked: AskedChoice, free: int) -> tuple[MemoryChoice, dict[str, Any]]:
        limit = int(CLOSE * free)
        setup, choice = fitted_setup(self._setup(), asked, limit_bytes=limit)
        assert choice is not None
        estimate = step_memory(setup).total
        if estimate > limit:
            raise UserError(self._refusal(asked, free, estimate))
        return choice, _record(asked, choice, free_bytes=free, estimated_bytes=estimate)

    def _setup(self) -> TrainingSetup:
        """Return the setup of a step, counted in its data, before `auto` is chosen."""
        step = planned_step(self.config, self.spec)
        workload = planned_workload(step, num_examples=None, tokens_per_query=None)
        return training_setup(step, planned_model(self.spec), workload)

    def _settle(
        self, choice: MemoryChoice, record: dict[str, Any], loggers: Sequence[Logger]
    ) -> None:
        """Put the choice where the run reads it; on rank 0 also into its files, log and loggers."""
        values = (choice.gradient_checkpointing, choice.grad_cache_chunk_tokens)
        # a key that is stated may be one that the model does not have
        chosen = {
            key: value
            for key, value in zip(KEYS, values, strict=True)
            if key in record["open_keys"]
        }
        for key, value in chosen.items():
            OmegaConf.update(self.config, key, value)
        if world.rank() > 0:
            return
        for path in (self.run.config, self.run.resolved_config):
            stored = read_unchecked_config(path)
            for key, value in chosen.items():
                OmegaConf.update(stored, key, value)
            write_text(path, OmegaConf.to_yaml(stored))
        write_json(self.run.provenance, {**_provenance(self.run), RECORD: record})
        logger.info("auto: %s, %s", " ".join(choice.overrides), _reason(record))
        # loggers replace sections: with the chosen keys alone they would lose the others
        hyperparameters: Any = OmegaConf.to_container(
            read_unchecked_config(self.run.resolved_config)
        )
        for each in loggers:
            each.log_hyperparams(hyperparameters)

    def _check_record(self, free: int) -> None:
        """Refuse to continue with a choice that does not fit the GPUs that are there now."""
        record = _provenance(self.run).get(RECORD)
        if record is None or (record["estimated_bytes"] or 0) <= free:
            return
        raise UserError(
            f"{' '.join(record['overrides'])}: this run chose it where {gib(record['free_bytes'])} "
            f"were free. It takes about {gib(record['estimated_bytes'])}, and {gib(free)} are free "
            "on the fullest GPU. Fix: free its memory, or choose anew, after which dropout's masks "
            "differ from those of an uninterrupted run: "
            f"{resume_command(self.config, self.run.path)} task.chooses_memory_anew=true"
        )

    def _refusal(self, asked: AskedChoice, free: int, estimate: int) -> str:
        keys = " and ".join(f"{key}=auto" for key in open_keys(asked))
        if self.run.has_checkpoint:  # other overrides would be those of another run
            found = "Fix: free its memory, or resume on a larger GPU."
        else:
            found = refusal_for_memory(planned_training(self.config), num_bytes=free)
        return (
            f"{keys}: nothing fits. The thriftiest setting takes about {gib(estimate)}, and "
            f"{gib(free)} are free on the fullest GPU, of which {CLOSE:.0%} are used. {found}"
        )


def _record(
    asked: AskedChoice,
    choice: MemoryChoice,
    *,
    free_bytes: int | None = None,
    estimated_bytes: int | None = None,
) -> dict[str, Any]:
    """Return what provenance.json gets; without numbers where the choice is for a CPU."""
    return {
        "free_bytes": free_bytes,
        "estimated_bytes": estimated_bytes,
        "overrides": list(choice.overrides),
        "open_keys": open_keys(asked),
    }


def _provenance(run: RunDirectory) -> dict[str, Any]:
    provenance: dict[str, Any] = json.loads(run.provenance.read_text(encoding="utf-8"))
    return provenance


def _reason(record: dict[str, Any]) -> str:
    if record["free_bytes"] is None:
        return "on a CPU"
    need, free = gib(record["estimated_bytes"]), gib(record["free_bytes"])
    return f"about {need} of the {free} that are free on the fullest GPU"


def open_keys(asked: AskedChoice) -> list[str]:
    """Return the keys that are left to `auto`."""
    values = (asked.gradient_checkpointing, asked.grad_cache_chunk_tokens)
    return [key for key, value in zip(KEYS, values, strict=True) if value == AUTO]


def choose_anew(config: DictConfig, run: RunDirectory) -> None:
    """Put `auto` back where a run's stored configuration has its choice; files stay as they are.

    Args:
        config: the stored configuration; changed.
        run: its provenance says which keys were open.

    Raises:
        UserError: nothing was chosen in this run.
    """
    record = _provenance(run).get(RECORD)
    if record is None:
        raise UserError(
            f"task.chooses_memory_anew=true: {run.path} has no choice on record, because its "
            "settings were stated. Fix: leave it out."
        )
    for key in record["open_keys"]:
        OmegaConf.update(config, key, AUTO)
