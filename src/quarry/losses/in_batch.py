"""What the InfoNCE losses share: embeddings wide enough to compare, and their mean with metrics."""

from __future__ import annotations

import torch
from torch import Tensor

from quarry.losses.loss_inputs import LossInputs
from quarry.types import LossOutput


def wide_embeddings(inputs: LossInputs) -> tuple[Tensor, Tensor]:
    """Return this rank's queries and the passages of all ranks, in fp32 or wider."""
    wide = torch.promote_types(inputs.queries.dtype, torch.float32)
    return inputs.queries.to(wide), inputs.all_passages.to(wide)


def mean_output(
    inputs: LossInputs, losses: Tensor, is_first: Tensor, *, queries: Tensor, passages: Tensor
) -> LossOutput:
    """Return the mean over queries, with the metrics `accuracy` and `positive_similarity`.

    Args:
        losses: [num_queries].
        is_first: [num_queries], whether the positive ranks first.
        queries, passages: see `wide_embeddings`.
    """
    with torch.no_grad():
        positive = (queries * passages[inputs.positive_index_in_all]).sum(dim=1)
    return LossOutput(
        loss=inputs.mean(losses),
        metrics={
            "accuracy": inputs.mean(is_first.float()),
            "positive_similarity": inputs.mean(positive),
        },
    )
