"""Compose the configurations of a sweep's jobs before the first one starts."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from quarry.errors import UserError
from quarry.runtime.devices import planned_for_gpu

if TYPE_CHECKING:
    from quarry.planning.inputs import PlannedJob

VALIDATED = {"quarry.tasks.train.train": "train", "quarry.tasks.evaluate.evaluate": "eval"}
"""Tasks whose configuration is checked for every job, with their primary."""

Job = Sequence[str]
"""The overrides of a job."""


class JobConfigs:
    """Compose, validate and plan the jobs of a sweep.

    Args:
        config: of the sweep, with Hydra's part.
    """

    def __init__(self, config: DictConfig) -> None:
        self._config = config

    def base(self) -> DictConfig:
        """Return the configuration of the command, without swept values and Hydra's part."""
        return _without_hydra(self._config)

    def composed(self, jobs: Sequence[Job]) -> list[DictConfig]:
        """Return the configuration of every job, without Hydra's part."""
        loader = GlobalHydra.instance().config_loader()
        return [_without_hydra(loader.load_sweep_config(self._config, list(job))) for job in jobs]

    def validated(self, jobs: Sequence[Job]) -> list[DictConfig]:
        """Return the configurations of trainings and evaluations, each of them valid.

        Raises:
            UserError: a job cannot work.
        """
        from quarry.config.validation import validate

        found: list[DictConfig] = []
        for job, config in zip(jobs, self.composed(jobs), strict=True):
            primary = primary_of(config)
            if primary is None:
                continue
            try:
                validate(config, primary=primary)
            except UserError as error:
                raise UserError(f"The job {' '.join(job)}:\n{error}") from None
            found.append(config)
        return found

    def planned_for_slurm(self, jobs: Sequence[Job]) -> list[PlannedJob | None]:
        """Return trainings and evaluations as a node with GPUs runs them; None: not known.

        Nothing is planned on a CPU, where activations count and are not counted.
        """
        from quarry.planning.inputs import planned_job

        found: list[PlannedJob | None] = []
        for config in self.composed(jobs):
            if primary_of(config) is None:
                continue
            with planned_for_gpu():
                on_cpu = config.trainer.accelerator == "cpu"
                found.append(None if on_cpu else planned_job(config))
        return found


def primary_of(config: DictConfig) -> str | None:
    """Return whose configuration it is, train or eval; None: of a task that is not checked."""
    return VALIDATED.get(str(OmegaConf.select(config, "task._target_")))


def _without_hydra(config: DictConfig) -> DictConfig:
    """Return a copy without Hydra's own part."""
    copied = copy.deepcopy(config)
    OmegaConf.set_struct(copied, False)
    del copied["hydra"]
    return copied
