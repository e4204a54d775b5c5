"""Hold the plan of a training run: what it takes, whether it fits, and all of it as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from quarry.planning.disk import DiskNeed
from quarry.planning.evaluations import Evaluations
from quarry.planning.host import HostNeed
from quarry.planning.machine import CLOSE, Machine
from quarry.planning.rate import Rate
from quarry.planning.setup import PlannedModel
from quarry.planning.step_memory import StepMemory, TrainingSetup, unmeasured
from quarry.planning.workload import Workload
from quarry.training.memory_choice import MemoryChoice

GIB = 2**30
MEASURED_KIND = "qwen2"
"""Prefix of the model types whose memory was measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Hold what a training run would take.

    Attributes:
        strategy, precision, dtype: of the configuration; the last of frozen weights.
        num_nodes: that the ranks are on.
        choice: what `auto` stands for; None: nothing was left open.
        candidates: that fit, the fastest first.
        host: memory of the host, of this job on one node.
        num_jobs: that run on the machine at once, this one among them.
        rate: None: not known, and so are the hours.
        evaluations: None: there is no benchmark.
    """

    model: PlannedModel
    machine: Machine
    setup: TrainingSetup
    choice: MemoryChoice | None
    candidates: tuple[MemoryChoice, ...]
    memory: StepMemory
    workload: Workload
    rate: Rate | None
    disk: DiskNeed
    evaluations: Evaluations | None
    strategy: str
    precision: str
    dtype: str
    num_nodes: int
    host: HostNeed
    num_jobs: int = 1

    @property
    def training_hours(self) -> float | None:
        """Return the hours without evaluations."""
        num_tokens = self.workload.num_tokens
        if self.rate is None or num_tokens is None:
            return None
        return num_tokens / (self.rate.tokens_per_s * self.setup.world_size) / 3600

    @property
    def evaluation_hours(self) -> float | None:
        """Return those before, during and after training; None: not known."""
        return 0.0 if self.evaluations is None else self.evaluations.hours

    @property
    def hours(self) -> float | None:
        """Return those of training and of known evaluations; None: training is not known."""
        if self.training_hours is None:
            return None
        return self.training_hours + (self.evaluation_hours or 0.0)

    @property
    def is_at_least(self) -> bool:
        """Return whether the run takes longer than `hours` says."""
        slower = self.rate is not None and self.rate.is_limit
        late = self.evaluations is not None and self.evaluations.is_limit
        return slower or late or self.evaluation_hours is None

    @property
    def device_hours(self) -> float | None:
        return None if self.hours is None else self.hours * self.setup.world_size

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """Return in what the run differs from those whose memory was measured."""
        kind = self.model.config.get_text_config().model_type
        others = () if kind.startswith(MEASURED_KIND) else (f"an architecture like {kind}",)
        return (*unmeasured(self.setup), *others)

    @property
    def share_of_memory(self) -> float:
        return self.memory.total / max(1, self.machine.num_bytes)  # a GPU may be full

    @property
    def fits_memory(self) -> bool:
        """Return whether the run would start; `auto` takes no more than `CLOSE` of a GPU."""
        is_chosen = self.choice is not None and self.machine.is_gpu
        return self.share_of_memory <= (CLOSE if is_chosen else 1)

    @property
    def is_close(self) -> bool:
        return self.fits_memory and self.share_of_memory > CLOSE

    @property
    def fits_disk(self) -> bool:
        free = self.machine.disk_bytes
        return free is None or self.disk.run_directory + self.host.corpus_on_disk <= free

    @property
    def host_bytes(self) -> int:
        """Return those of one node, for all jobs that run there at once."""
        return self.num_jobs * self.host.total

    @property
    def fits_host(self) -> bool:
        return self.machine.host_bytes is None or self.host_bytes <= self.machine.host_bytes

    def as_json(self) -> dict[str, Any]:
        """Return numbers in bytes, tokens and hours; null: not known."""
        memory = asdict(self.memory) | {"total": self.memory.total}
        return {
            "model": self._model_as_json(),
            "machine": asdict(self.machine),
            "num_processes": self.setup.world_size,
            "num_nodes": self.num_nodes,
            "strategy": self.strategy,
            "precision": self.precision,
            "is_compiled": self.setup.kept.is_compiled,
            "gradient_checkpointing": self.setup.kept.gradient_checkpointing,
            "grad_cache_chunk_tokens": self.setup.grad_cache_chunk_tokens,
            "is_chosen": self.choice is not None,
            "candidates": [asdict(each) for each in self.candidates],
            "memory_bytes_per_process": memory,
            "unmeasured": list(self.unmeasured),
            "host_bytes_per_node": self.host_bytes,
            "host": asdict(self.host) | {"total": self.host.total},
            "num_jobs_at_once": self.num_jobs,
            "workload": self._workload_as_json(),
            "rate": None if self.rate is None else asdict(self.rate),
            "hours": self.hours,
            "training_hours": self.training_hours,
            "evaluation_hours": self.evaluation_hours,
            "is_at_least": self.is_at_least,
            "device_hours": self.device_hours,
            "evaluations": None if self.evaluations is None else asdict(self.evaluations),
            "disk_bytes": asdict(self.disk) | {"run_directory": self.disk.run_directory},
            "fits_memory": self.fits_memory,
            "fits_disk": self.fits_disk,
            "fits_host": self.fits_host,
        }

    def _model_as_json(self) -> dict[str, Any]:
        return {
            "source": self.model.source,
            "shape_from": self.model.shape_from,
            "num_parameters": self.model.num_parameters,
            "num_trained": self.setup.num_trained,
            "trains_trunk": not self.model.part.is_beside,
            "dtype": self.dtype,
        }

    def _workload_as_json(self) -> dict[str, Any]:
        return asdict(self.workload) | {
            "tokens_per_step": self.workload.tokens_per_step,
            "tokens_per_epoch": self.workload.tokens_per_epoch,
            "num_tokens": self.workload.num_tokens,
            "tokens_of_one_process_at_most": self.setup.tokens_per_pass,
        }

    def summary(self) -> dict[str, float]:
        """Return the few numbers that sweeps collect."""
        values = {
            "plan/memory_gib": self.memory.total / GIB,
            "plan/share_of_memory": self.share_of_memory,
            "plan/num_steps": self.workload.num_steps,
            "plan/num_tokens": self.workload.num_tokens,
            "plan/hours": self.hours,
            "plan/host_gib": self.host_bytes / GIB,
            "plan/run_directory_gib": self.disk.run_directory / GIB,
        }
        return {name: float(value) for name, value in values.items() if value is not None}
