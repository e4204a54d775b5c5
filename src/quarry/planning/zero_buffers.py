"""Count what ZeRO holds on each rank beside its shards, as in the code of DeepSpeed 0.19."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FP32_BYTES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class ZeroBuffers:
    """Hold the settings of `ZeroStrategy` that cost memory; see there."""

    stage: int
    reduce_bucket_size: int
    overlap_comm: bool = True
    contiguous_gradients: bool = True
    max_live_parameters: int = 0

    @classmethod
    def of(cls, settings: Mapping[Any, Any]) -> ZeroBuffers:
        """Read them from the settings of a strategy, as conf/strategy states them."""
        in_shards = settings["stage"] == 3
        return cls(
            stage=settings["stage"],
            reduce_bucket_size=settings["reduce_bucket_size"],
            overlap_comm=settings.get("overlap_comm", True),
            contiguous_gradients=settings.get("contiguous_gradients", True),
            max_live_parameters=settings.get("max_live_parameters", 10**9) if in_shards else 0,
        )

    def num_bytes(self, *, num_parameters: int, itemsize: int, trained_itemsize: int) -> int:
        """Return the bytes of buckets, which are allocated in full, and of fetched weights.

        Args:
            num_parameters: of the complete model.
            itemsize, trained_itemsize: bytes of a weight, and of one that is trained.
        """
        bucket = self.reduce_bucket_size * trained_itemsize if self.contiguous_gradients else 0
        if self.stage == 3:
            return bucket + min(self.max_live_parameters, num_parameters) * itemsize
        if self.stage == 1:  # which reduces in the precision of its optimizer
            bucket = bucket // trained_itemsize * FP32_BYTES
        return bucket * (2 if self.overlap_comm else 1)
