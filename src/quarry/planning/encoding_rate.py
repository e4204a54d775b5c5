"""Estimate how fast a device encodes: as stated, or as measured with a model of that size."""

from __future__ import annotations

import json

import torch

from quarry.planning import rate as training_rate
from quarry.planning.cards import Card, rate_on
from quarry.planning.rate import NEAR, Rate

FORWARD_FLOP = 2
"""Of a token and a weight in linear layers."""

ENCODED = {
    None: (("encode_7b", "ours"), ("encode_05b", "ours")),
    "fp8": (("encode_7b", "ours_fp8"),),
}
"""`model.linear_precision` -> measurements of encoding in bfloat16, compiled."""


def planned_encoding_rate(
    *,
    num_linear: int,
    dtype: torch.dtype,
    linear_precision: str | None,
    card: Card | None,
    stated: float | None = None,
    slower: tuple[str, ...] = (),
) -> Rate | None:
    """Return the rate of one device; None: nobody has stated or measured it.

    Args:
        num_linear: weights in the linear layers that text goes through.
        dtype: what it computes in; of float16 the rate is taken to be that of bfloat16.
        linear_precision: of the model.
        card: that it runs on; None: one that is not in the table, or a CPU.
        stated: tokens a second of one device.
        slower: in what the measurement differs from a run that is slower, such as "compiled".
    """
    if stated is not None:
        return Rate(tokens_per_s=stated, source="as stated")
    if (
        card is None
        or dtype not in (torch.bfloat16, torch.float16)
        or not training_rate.MEASURED.exists()
    ):
        return None
    content = json.loads(training_rate.MEASURED.read_text(encoding="utf-8"))
    for measurement, name in ENCODED[linear_precision]:
        part = content["parts"].get(measurement, {}).get(name, {})
        if "tokens_per_s" not in part:
            continue
        if abs(part["flop_per_token"] / FORWARD_FLOP / num_linear - 1) > NEAR:
            continue
        device = content["runs"][part["run"]]["device"]
        found = rate_on(
            card,
            tokens_per_s=part["tokens_per_s"],
            measured_on=device,
            linear_precision=linear_precision,
        )
        if found is None:
            return None
        source = f"docs/performance.md, {found[1]}"
        if dtype != torch.bfloat16:
            source += ", measured in bfloat16"
        if slower:
            source += f"; measured {' and '.join(slower)}, so the run takes longer"
        return Rate(tokens_per_s=found[0], source=source, is_limit=bool(slower))
    return None
