"""Fit a training step to the GPUs that are there: what `auto` stands for in this run.

The choice is made once, when the ranks know one another and before weights load: from the memory
that is free on the fullest GPU of all. It becomes part of the stored configuration, so that a
resumed run takes it as it is.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger

from quarry.config.memory import AUTO
from quarry.config.stored import read_stored_config
from quarry.distributed import world
from quarry.errors import UserError
from quarry.models.factory import BiEncoderFactory
from quarry.models.memory import free_device_bytes, gib
from quarry.runtime.files import write_json, write_text
from quarry.runtime.run_directory import RunDirectory
from quarry.tasks.plan import refusal_for_memory
from quarry.tasks.planning.machine import CLOSE
from quarry.tasks.planning.setup import (
    asked_choice,
    fitted_setup,
    plain_choice,
    planned_model,
    training_setup,
)
from quarry.tasks.planning.workload import planned_workload
from quarry.training.memory_fit import MemoryChoice
from quarry.training.step_memory import TrainingSetup, step_memory

logger = logging.getLogger(__name__)

RECORD = "memory_choice"
"""Key of provenance.json."""

KEYS = ("model.gradient_checkpointing", "data.grad_cache_chunk_tokens")


class StepFit:
    """Settles gradient checkpointing and chunk size of a run, on every rank alike.

    Args:
        config: of the run; gets the choice.
        run: whose stored configuration and provenance get it, too.
        factory: builds the model as it was chosen.
    """

    def __init__(self, config: DictConfig, run: RunDirectory, factory: BiEncoderFactory) -> None:
        self.config = config
        self.run = run
        self.factory = factory
        self.loggers: Sequence[Logger] = ()

    def __call__(self, device: torch.device) -> MemoryChoice:
        """Return the choice for ranks that compute on `device` each.

        Raises:
            UserError: nothing fits; or what an earlier process of this run chose does not fit here.
        """
        is_open = AUTO in asked_choice(self.config).values()
        if device.type != "cuda":
            choice = plain_choice(self.config)
            if is_open:
                self._settle(choice, None)
                logger.info("auto on a CPU: %s", " ".join(choice.overrides))
            return choice
        free = min(world.gathered(free_device_bytes(device)))
        if is_open:
            choice, record = world.first_does(lambda: self._chosen(free))
            self._settle(choice, record)
            return choice
        world.first_does(lambda: self._check_record(free))
        return plain_choice(self.config)

    def _chosen(self, free: int) -> tuple[MemoryChoice, dict[str, Any]]:
        limit = int(CLOSE * free)
        setup, choice = fitted_setup(self._setup(), self.config, limit_bytes=limit)
        assert choice is not None
        estimate = step_memory(setup).total
        if estimate > limit:
            raise UserError(self._refusal(free, estimate))
        logger.info(
            "auto: %s, about %s of the %s that are free on the fullest GPU",
            " ".join(choice.overrides),
            gib(estimate),
            gib(free),
        )
        record = {
            "free_bytes": free,
            "estimated_bytes": estimate,
            "overrides": list(choice.overrides),
            "open_keys": open_keys(self.config),
        }
        return choice, record

    def _setup(self) -> TrainingSetup:
        workload = planned_workload(self.config, num_examples=None, tokens_per_query=None)
        model = planned_model(self.factory)
        return training_setup(self.config, self.factory, model, workload)

    def _settle(self, choice: MemoryChoice, record: dict[str, Any] | None) -> None:
        values = (choice.gradient_checkpointing, choice.grad_cache_chunk_tokens)
        chosen = dict(zip(KEYS, values, strict=True))
        for key, value in chosen.items():
            OmegaConf.update(self.config, key, value)
        self.factory.gradient_checkpointing = choice.gradient_checkpointing
        if world.rank() > 0:
            return
        for path in (self.run.config, self.run.resolved_config):
            stored = read_stored_config(path)
            for key, value in chosen.items():
                OmegaConf.update(stored, key, value)
            write_text(path, OmegaConf.to_yaml(stored))
        if record is not None:
            provenance = json.loads(self.run.provenance.read_text(encoding="utf-8"))
            write_json(self.run.provenance, {**provenance, RECORD: record})
        for each in self.loggers:
            each.log_hyperparams(
                {key.split(".")[0]: {key.split(".")[1]: value} for key, value in chosen.items()}
            )

    def _check_record(self, free: int) -> None:
        """Refuse to go on with a choice that does not fit the GPU of now."""
        provenance = json.loads(self.run.provenance.read_text(encoding="utf-8"))
        record = provenance.get(RECORD)
        if record is None or record["estimated_bytes"] <= free:
            return
        raise UserError(
            f"This run chose {' '.join(record['overrides'])} for {gib(record['free_bytes'])}; that "
            f"takes about {gib(record['estimated_bytes'])}, and {gib(free)} are free on the "
            "fullest GPU. Free its memory, or choose anew, after which dropout's masks differ from "
            f"those of an uninterrupted run: python train.py task=resume run={self.run.path} "
            "task.chooses_memory_anew=true"
        )

    def _refusal(self, free: int, estimate: int) -> str:
        keys = " and ".join(f"{key}=auto" for key in open_keys(self.config))
        found = refusal_for_memory(self.config, num_bytes=int(CLOSE * free))
        return (
            f"{keys}: nothing fits. The thriftiest setting takes about {gib(estimate)}, and "
            f"{gib(free)} are free on the fullest GPU, of which {CLOSE:.0%} are used. {found}"
        )


def open_keys(config: DictConfig) -> list[str]:
    """Return the keys that a configuration leaves to `auto`."""
    return [key for key in KEYS if OmegaConf.select(config, key) == AUTO]


def choose_anew(config: DictConfig, run: RunDirectory) -> None:
    """Put `auto` back where a stored choice is in a configuration.

    Raises:
        UserError: nothing was chosen in this run.
    """
    record = json.loads(run.provenance.read_text(encoding="utf-8")).get(RECORD)
    if record is None:
        raise UserError(
            f"task.chooses_memory_anew=true: {run.path} has chosen nothing, its settings were "
            "stated. Leave it out."
        )
    for key in record["open_keys"]:
        OmegaConf.update(config, key, AUTO)
