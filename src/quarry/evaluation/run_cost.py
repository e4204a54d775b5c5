"""What a run took: time, devices, tokens, memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

CPU = "CPU"
"""The kind of device that is no GPU."""


@dataclass(frozen=True, kw_only=True)
class RunCost:
    """Of all parts of a run that was resumed, but for what was lost between a checkpoint and the
    end of a part.

    Attributes:
        wall_hours: from the start of the task to its end.
        training_s: inside training steps.
        encoding_s, searching_s: of evaluations, in the first process (see `RetrievalTimes`).
        num_devices: GPUs, or processes on CPUs.
        device: their kind: a GPU's name, or "CPU".
        num_trained_tokens: real tokens that went through training steps, of all devices.
        peak_device_memory_gib: the most that tensors took at one time on the GPU that held most;
            None: there is no GPU.
        peak_host_memory_gib: the most memory that the process with most had.
    """

    wall_hours: float
    training_s: float
    encoding_s: float
    searching_s: float
    num_devices: int
    device: str
    num_trained_tokens: int
    peak_device_memory_gib: float | None
    peak_host_memory_gib: float

    @property
    def device_hours(self) -> float:
        """Hours of the whole run times devices."""
        return self.wall_hours * self.num_devices

    @property
    def gpu_hours(self) -> float:
        """The same of GPUs; 0 on CPUs."""
        return 0.0 if self.device == CPU else self.device_hours

    @property
    def training_device_hours(self) -> float:
        """Hours inside training steps times devices."""
        return self.training_s * self.num_devices / 3600

    @property
    def tokens_per_s(self) -> float | None:
        """Real tokens a second of training steps, of all devices; None: nothing was trained."""
        return self.num_trained_tokens / self.training_s if self.training_s else None

    def as_json(self) -> dict[str, Any]:
        """Plain data, with what follows from them."""
        return asdict(self) | {
            "device_hours": self.device_hours,
            "gpu_hours": self.gpu_hours,
            "tokens_per_s": self.tokens_per_s,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> RunCost:
        """What `as_json` made plain.

        Raises:
            KeyError: something is missing.
        """
        return cls(**{field.name: document[field.name] for field in fields(cls)})
