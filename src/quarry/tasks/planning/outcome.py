"""A plan as data: what a run would take, what is against it, and all of it as plain JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from quarry.tasks.planning.disk import DiskNeed
from quarry.tasks.planning.machine import CLOSE, Machine
from quarry.tasks.planning.rate import Rate
from quarry.tasks.planning.setup import PlannedModel
from quarry.tasks.planning.workload import Workload
from quarry.training.memory_fit import MemoryChoice
from quarry.training.step_memory import StepMemory, TrainingSetup

GIB = 2**30


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluations:
    """Of the benchmark, before, in and after training.

    Attributes:
        number: how often; None: not known.
        num_texts: queries and documents of the sets whose size is known; those of a corpus that
            several sets search once.
        unknown_sets: the others.
    """

    number: int | None
    num_texts: int
    unknown_sets: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a training run would take.

    Attributes:
        strategy, precision, dtype: of the configuration; the last of frozen weights.
        num_nodes: that the processes are on.
        choice: what `auto` stands for; None: nothing was left open.
        rate: None: not known, and so are the hours.
        evaluations: None: there is no benchmark.
    """

    model: PlannedModel
    machine: Machine
    setup: TrainingSetup
    choice: MemoryChoice | None
    memory: StepMemory
    workload: Workload
    rate: Rate | None
    disk: DiskNeed
    evaluations: Evaluations | None
    strategy: str
    precision: str
    dtype: str
    num_nodes: int

    @property
    def hours(self) -> float | None:
        """Of training alone."""
        num_tokens = self.workload.num_tokens
        if self.rate is None or num_tokens is None:
            return None
        return num_tokens / (self.rate.tokens_per_s * self.setup.num_processes) / 3600

    @property
    def device_hours(self) -> float | None:
        return None if self.hours is None else self.hours * self.setup.num_processes

    @property
    def share_of_memory(self) -> float:
        return self.memory.total / self.machine.num_bytes

    @property
    def fits_memory(self) -> bool:
        return self.share_of_memory <= 1

    @property
    def is_close(self) -> bool:
        return CLOSE < self.share_of_memory <= 1

    @property
    def fits_disk(self) -> bool:
        free = self.machine.disk_bytes
        return free is None or self.disk.run_directory <= free

    @property
    def host_bytes_per_node(self) -> int:
        """Where weights pass through, one copy a process, or where what is offloaded lives."""
        per_node = self.setup.num_processes // self.num_nodes
        return per_node * max(self.memory.host, self.memory.weights)

    def as_json(self) -> dict[str, Any]:
        """Numbers in bytes, tokens and hours; null: not known."""
        memory = asdict(self.memory) | {"total": self.memory.total}
        workload = asdict(self.workload)
        workload |= {
            "tokens_per_step": self.workload.tokens_per_step,
            "tokens_per_epoch": self.workload.tokens_per_epoch,
            "num_tokens": self.workload.num_tokens,
            "tokens_of_one_process_at_most": self.setup.tokens_per_pass,
        }
        part = self.model.part
        return {
            "model": {
                "source": self.model.source,
                "shape_from": self.model.shape_from,
                "num_parameters": self.model.num_parameters,
                "num_trained": part.num_parameters,
                "trains_trunk": not part.is_beside,
                "dtype": self.dtype,
            },
            "machine": asdict(self.machine),
            "num_processes": self.setup.num_processes,
            "num_nodes": self.num_nodes,
            "strategy": self.strategy,
            "precision": self.precision,
            "is_compiled": self.setup.kept.is_compiled,
            "gradient_checkpointing": self.setup.kept.gradient_checkpointing,
            "grad_cache_chunk_tokens": self.setup.grad_cache_chunk_tokens,
            "is_chosen": self.choice is not None,
            "memory_bytes_per_process": memory,
            "host_bytes_per_node": self.host_bytes_per_node,
            "workload": workload,
            "rate": None if self.rate is None else asdict(self.rate),
            "hours": self.hours,
            "device_hours": self.device_hours,
            "evaluations": None if self.evaluations is None else asdict(self.evaluations),
            "disk_bytes": asdict(self.disk) | {"run_directory": self.disk.run_directory},
            "fits_memory": self.fits_memory,
            "fits_disk": self.fits_disk,
        }

    def summary(self) -> dict[str, float]:
        """The few numbers that sweeps collect."""
        values = {
            "plan/memory_gib": self.memory.total / GIB,
            "plan/share_of_memory": self.share_of_memory,
            "plan/num_steps": self.workload.num_steps,
            "plan/num_tokens": self.workload.num_tokens,
            "plan/hours": self.hours,
            "plan/run_directory_gib": self.disk.run_directory / GIB,
        }
        return {name: float(value) for name, value in values.items() if value is not None}
