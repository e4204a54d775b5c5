"""Calls a loss on plain tensors, as if a single rank had them."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from quarry.losses.base import Loss
from quarry.losses.loss_inputs import LossInputs
from quarry.types import LossOutput, TextHashes


def output_of(
    loss: Loss,
    queries: Tensor,
    passages: Tensor,
    positive_index: Tensor,
    hashes: TextHashes | None = None,
    **more: Any,
) -> LossOutput:
    """The output for one contrastive batch; further inputs by their names."""
    inputs = LossInputs(
        queries=queries, passages=passages, positive_index=positive_index, hashes=hashes, **more
    )
    output: LossOutput = loss(inputs)
    return output


class LearnedTemperature(Loss):
    """A cross entropy whose temperature is learned, and a matrix between queries and passages.

    Args:
        dim: of the embeddings.
    """

    optimizer_group = MappingProxyType({"name": "temperature", "lr": 2e-2, "weight_decay": 0.0})

    def __init__(self, *, dim: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.full([1], -3.0, dtype=dtype))
        self.between = nn.Parameter(torch.eye(dim, dtype=dtype))
        self.register_buffer("num_calls", torch.zeros((), dtype=torch.int64))

    def forward(self, inputs: LossInputs) -> LossOutput:
        self.num_calls += 1
        temperature = self.log_temperature.to(inputs.queries.dtype).exp()
        queries = inputs.queries @ self.between.to(inputs.queries.dtype)
        logits = queries @ inputs.all_passages.T / temperature
        losses = cross_entropy(logits, inputs.positive_index_in_all, reduction="none")
        return LossOutput(
            loss=inputs.mean(losses),
            metrics={
                "accuracy": inputs.mean(
                    (logits.argmax(dim=1) == inputs.positive_index_in_all).float()
                ),
                "temperature": temperature[0],
            },
        )
