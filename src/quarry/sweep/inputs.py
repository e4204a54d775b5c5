"""Turn the configuration of a sweep, or of one of its jobs, into typed values, once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from quarry.config.stored_targets import packages_of
from quarry.config.sweep_overrides import (
    all_jobs,
    as_typed,
    fixed_keys,
    has_all_jobs_known,
    swept_keys,
    twice_given,
)
from quarry.config.world_size import num_devices


@dataclass(frozen=True, kw_only=True)
class Launcher:
    """Describe what starts the jobs of a sweep.

    Attributes:
        target: its class.
        num_workers: jobs at once, as joblib takes it; negative: all cores but some.
        has_memory: hydra.launcher.mem_gb is stated.
    """

    target: str
    num_workers: int
    has_memory: bool

    @classmethod
    def of(cls, node: Mapping[Any, Any]) -> Launcher:
        """Read it from `hydra.launcher`."""
        target = str(node.get("_target_"))
        return cls(
            target=target,
            num_workers=int(node.get("n_jobs") or 1) if "joblib" in target else 1,
            has_memory=node.get("mem_gb") is not None,
        )

    @property
    def is_joblib(self) -> bool:
        return "joblib" in self.target

    @property
    def is_slurm(self) -> bool:
        return "slurm" in self.target.lower()

    def num_jobs_at_once(self, num_jobs: int) -> int:
        """Return how many of so many jobs run on this machine at once."""
        number = self.num_workers
        if number < 0:
            number = max(1, (os.cpu_count() or 1) + 1 + number)
        return min(number, max(1, num_jobs))


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Describe a sweep before its first job.

    Attributes:
        folder, subdir: of its run directories.
        name: of the study; None: the folder's.
        is_continued: study.resume=true.
        num_nodes: of each job.
        task: its `_target_`.
        jobs: the overrides of each; None: the sweeper chooses them by the results of others.
        fixed, swept: keys with one value in all jobs, and those with several.
        repeated: keys that the command line names more than once.
    """

    folder: Path
    subdir: str
    name: str | None
    is_continued: bool
    optimized_metric: str | None
    num_nodes: int
    task: str
    launcher: Launcher
    jobs: tuple[tuple[str, ...], ...] | None
    fixed: tuple[str, ...]
    swept: tuple[str, ...]
    repeated: tuple[str, ...]


def read_sweep(config: DictConfig) -> Sweep:
    """Read a sweep from its configuration, Hydra's part included."""
    hydra = config.hydra
    return Sweep(
        folder=Path(hydra.sweep.dir).absolute(),
        subdir=hydra.sweep.subdir,
        name=config.study.name,
        is_continued=bool(config.study.resume),
        optimized_metric=config.optimized_metric,
        num_nodes=int(config.trainer.get("num_nodes", 1)),
        task=str(OmegaConf.select(config, "task._target_")),
        launcher=Launcher.of(hydra.launcher),
        jobs=tuple(all_jobs(config)) if has_all_jobs_known(hydra.sweeper) else None,
        fixed=fixed_keys(config),
        swept=swept_keys(config),
        repeated=tuple(twice_given(config)),
    )


@dataclass(frozen=True, kw_only=True)
class CommandLine:
    """Hold what Hydra knows of the command line of a job.

    Attributes:
        config_name: train or eval.
        sources: folders of configurations, each with what names it (provider, path).
        overrides, hydra_overrides: of the job, and of Hydra's own part.
    """

    config_name: str
    sources: tuple[tuple[str, str], ...]
    overrides: tuple[str, ...]
    hydra_overrides: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SweepJob:
    """Describe a job that Hydra has composed.

    Attributes:
        folder: of the study.
        is_chosen: its sweeper chooses jobs by the results of others, and needs a value.
        plans_alone: task.num_jobs_at_once=1: a plan that may have to know of the other jobs.
        num_gpus: that it needs of its own; 0: none, or the only job that runs here.
        trusted_packages: what it may read back when it is resumed, by its own command.
    """

    folder: Path
    is_chosen: bool
    optimized_metric: str | None
    plans_alone: bool
    num_gpus: int
    trusted_packages: tuple[str, ...]
    launcher: Launcher
    command: CommandLine


def read_job(config: DictConfig) -> SweepJob:
    """Read the job that this process was started for, from its configuration and Hydra's."""
    hydra = HydraConfig.get()
    launcher = Launcher.of(hydra.launcher)
    shares_gpus = launcher.is_joblib and config.trainer.accelerator != "cpu"
    return SweepJob(
        folder=(Path(hydra.runtime.cwd) / hydra.sweep.dir).absolute(),
        is_chosen=not has_all_jobs_known(hydra.sweeper),
        optimized_metric=config.optimized_metric,
        plans_alone=OmegaConf.select(config, "task.num_jobs_at_once") == 1,
        num_gpus=(num_devices(config) or 1) if shares_gpus else 0,
        trusted_packages=packages_of(config),
        launcher=launcher,
        command=CommandLine(
            config_name=str(hydra.job.config_name),
            sources=tuple(
                (str(each.provider), str(each.path)) for each in hydra.runtime.config_sources
            ),
            overrides=as_typed(hydra.overrides.task),
            hydra_overrides=as_typed(hydra.overrides.hydra),
        ),
    )
