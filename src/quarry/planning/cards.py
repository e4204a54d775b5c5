"""List GPUs with peak throughput and memory, to estimate a rate on one from that on another."""

from __future__ import annotations

import re
from dataclasses import dataclass

from quarry.errors import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """Describe a GPU model.

    Attributes:
        name: as `task.card` takes it.
        pattern: regular expression of the full names that CUDA gives it.
        bf16_tflops: dense matrix products in bfloat16 with sums in float32, at peak.
        fp8_tflops: the same in fp8; None: it has none.
        memory_gib: total memory as CUDA reports it, rounded down; data sheets state more.
        source: of the throughput.
    """

    name: str
    pattern: str
    bf16_tflops: float
    fp8_tflops: float | None
    memory_gib: float
    source: str

    def peak_tflops(self, linear_precision: str | None) -> float | None:
        """Return the peak for `model.linear_precision`; None: the card has no such products."""
        return self.fp8_tflops if linear_precision == "fp8" else self.bf16_tflops


CARDS = (
    Card(
        name="b200",
        pattern=r"NVIDIA B200",
        bf16_tflops=2250.0,
        fp8_tflops=4500.0,
        memory_gib=178.0,
        source="NVIDIA HGX B200 data sheet: 36 and 72 PFLOP/s of eight GPUs with sparsity, halved",
    ),
    Card(
        name="h200",
        pattern=r"NVIDIA H200",
        bf16_tflops=989.4,
        fp8_tflops=1978.9,
        memory_gib=139.8,
        source="NVIDIA H200 data sheet, SXM: 1,979 and 3,958 TFLOP/s with sparsity, halved",
    ),
    Card(
        name="h100",
        pattern=r"NVIDIA H100 80GB HBM3",
        bf16_tflops=989.4,
        fp8_tflops=1978.9,
        memory_gib=79.0,
        source="NVIDIA H100 data sheet, SXM: 1,979 and 3,958 TFLOP/s with sparsity, halved",
    ),
    Card(
        name="a100-80gb",
        pattern=r"NVIDIA A100-SXM4-80GB|NVIDIA A100 80GB PCIe",
        bf16_tflops=312.0,
        fp8_tflops=None,
        memory_gib=79.0,
        source="NVIDIA A100 data sheet: 312 TFLOP/s dense",
    ),
    Card(
        name="a100-40gb",
        pattern=r"NVIDIA A100-SXM4-40GB|NVIDIA A100-PCIE-40GB",
        bf16_tflops=312.0,
        fp8_tflops=None,
        memory_gib=39.3,
        source="NVIDIA A100 data sheet: 312 TFLOP/s dense",
    ),
    Card(
        name="l40s",
        pattern=r"NVIDIA L40S",
        bf16_tflops=362.0,
        fp8_tflops=733.0,
        memory_gib=44.3,
        source="NVIDIA L40S data sheet: 362 and 733 TFLOP/s dense",
    ),
    Card(
        name="rtx4090",
        pattern=r"NVIDIA GeForce RTX 4090",
        bf16_tflops=165.2,
        fp8_tflops=330.3,
        memory_gib=23.5,
        source="NVIDIA Ada GPU architecture white paper: dense, sums in float32",
    ),
)
"""Variants with other clocks (H100 PCIe and NVL, RTX 4090 D) and parts of a card (MIG) are not in
the table: their full names match no pattern."""


def card_of(device_name: str) -> Card | None:
    """Return the card of a CUDA device by its full name; None: it is not in the table."""
    return next((card for card in CARDS if re.fullmatch(card.pattern, device_name)), None)


def named_card(name: str) -> Card:
    """Return the card that `task.card` names.

    Raises:
        UserError: it is not in the table.
    """
    for card in CARDS:
        if card.name == name.lower():
            return card
    known = ", ".join(card.name for card in CARDS)
    raise UserError(
        f"task.card={name}: there is no such card in the table ({known}). Fix: name one of them, "
        "or leave it out and state task.gpu_memory_gib=N and task.tokens_per_s=N."
    )


def rate_on(
    card: Card | None, *, tokens_per_s: float, measured_on: str, linear_precision: str | None
) -> tuple[float, str] | None:
    """Return a measured rate on a card and its source; None: nothing is known of that card.

    Args:
        card: that the plan is for; None: it is not in the table, or was not named.
        tokens_per_s, measured_on: the measurement, and the full name of its device.
        linear_precision: of the model.
    """
    origin = card_of(measured_on)
    if card is None or origin is None:
        return None
    if card.name == origin.name:
        return tokens_per_s, measured_on
    here, there = card.peak_tflops(linear_precision), origin.peak_tflops(linear_precision)
    if here is None or there is None:
        return None
    ratio = here / there
    note = (
        f"estimated from {measured_on} by peak ratio, not measured "
        f"({here:,.4g} to {there:,.4g} TFLOP/s)"
    )
    return tokens_per_s * ratio, note
