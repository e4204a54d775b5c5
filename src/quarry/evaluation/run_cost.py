"""Record the cost of a run: time, devices, tokens, memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

CPU = "CPU"
"""Value of `RunCost.device` without a GPU."""


@dataclass(frozen=True, kw_only=True)
class RunCost:
    """Time, devices, tokens and memory of a run.

    A resumed run counts all its parts, without work that was lost after a part's last checkpoint.

    Attributes:
        wall_hours: hours from the start of the task to its end.
        training_s: seconds inside training steps.
        encoding_s, searching_s: seconds of evaluations on rank 0 (see `RetrievalTimes`).
        num_devices: number of GPUs, or of ranks on CPUs.
        device: name of the GPUs, or "CPU".
        num_trained_tokens: tokens without padding in training steps, over all devices.
        peak_device_memory_gib: peak memory of tensors on the GPU with the highest peak; None: no
            GPU.
        peak_host_memory_gib: peak host memory of the rank with the highest peak.
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
        """Return the hours of the full run times devices."""
        return self.wall_hours * self.num_devices

    @property
    def gpu_hours(self) -> float:
        """Return the hours of the full run times GPUs; 0 on CPUs."""
        return 0.0 if self.device == CPU else self.device_hours

    @property
    def training_device_hours(self) -> float:
        """Return the hours inside training steps times devices."""
        return self.training_s * self.num_devices / 3600

    @property
    def tokens_per_s(self) -> float | None:
        """Return tokens (without padding) per second of training steps, over all devices.

        None if nothing was trained.
        """
        return self.num_trained_tokens / self.training_s if self.training_s else None

    def as_json(self) -> dict[str, Any]:
        """Return the fields and the derived figures as plain data."""
        return asdict(self) | {
            "device_hours": self.device_hours,
            "gpu_hours": self.gpu_hours,
            "tokens_per_s": self.tokens_per_s,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> RunCost:
        """Rebuild a cost from `as_json`'s data.

        Raises:
            KeyError: a field is missing.
        """
        return cls(**{field.name: document[field.name] for field in fields(cls)})
