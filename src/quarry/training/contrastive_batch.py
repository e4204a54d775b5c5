"""Compute the loss of a contrastive batch over ranks: own queries, all ranks' passages."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from quarry.distributed import world
from quarry.distributed.gather import exchanged_shares
from quarry.losses.base import Loss
from quarry.losses.loss_inputs import LossInputs
from quarry.types import LossOutput, RetrievalBatch


class ContrastiveBatchLoss(nn.Module):
    """Call a loss with a rank's batch, from which it reaches the passages of all ranks.

    Each rank compares its own queries. DDP and ZeRO average gradients over ranks, so each rank's
    loss is scaled to make that average the mean over all queries of the contrastive batch, even
    where ranks have different numbers of queries. That holds for the loss's own parameters, too.

    Args:
        loss: returns a mean over queries.
    """

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self.loss = loss

    def forward(
        self, embeddings: Tensor, batch: RetrievalBatch
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss of one contrastive batch; a collective operation.

        Args:
            embeddings: [num_texts, dim] of this rank's batch, queries first.

        Returns:
            This rank's share of the loss, and on every rank the metrics of the complete contrastive
            batch, with `loss` among them. (No dict: ZeRO 3 would follow the tensors in it.)
        """
        queries, passages = embeddings.split([batch.num_queries, batch.num_passages])
        of_queries, of_passages = exchanged_shares(batch.num_queries, batch.num_passages)
        inputs = LossInputs(
            queries=queries,
            passages=passages,
            positive_index=batch.positive_index,
            hashes=batch.hashes,
            scores=batch.scores,
            weights=batch.weights,
            of_queries=of_queries,
            of_passages=of_passages,
        )
        output: LossOutput = self.loss(inputs)
        share = inputs.share
        if isinstance(share, Tensor):
            share = share.to(output.loss.dtype)
        metrics = {"loss": output.loss.detach()} | dict(output.metrics)
        totals = world.total(torch.stack([value.detach() for value in metrics.values()]) * share)
        return (
            output.loss * (share * world.size()),
            MappingProxyType(dict(zip(metrics, totals.unbind(), strict=True))),
        )
