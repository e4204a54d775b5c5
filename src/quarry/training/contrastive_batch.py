"""Compute the loss of a contrastive batch over ranks: own queries, all ranks' passages."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from quarry.distributed import world
from quarry.distributed.gather import RowShares, exchanged_shares
from quarry.types import LossOutput, RetrievalBatch, TextHashes


class ContrastiveBatchLoss:
    """Call a loss with the passages of all ranks.

    Each rank compares its own queries with all passages. DDP and ZeRO average gradients over ranks,
    so each rank's loss is scaled to make that average the mean over all queries of the contrastive
    batch, even where ranks have different numbers of queries.

    Args:
        loss: (queries, passages, positive_index) -> LossOutput, a mean over queries; a loss with an
            argument `hashes` also receives the `TextHashes`.
    """

    def __init__(self, loss: Callable[..., LossOutput]) -> None:
        self._loss = loss
        self._takes_hashes = "hashes" in inspect.signature(loss).parameters

    def __call__(self, embeddings: Tensor, batch: RetrievalBatch) -> LossOutput:
        """Return the loss of one contrastive batch; a collective operation.

        Args:
            embeddings: [num_texts, dim] of this rank's batch, queries first.

        Returns:
            This rank's share of the loss, and on every rank the `metrics` of the complete
            contrastive batch, with `loss` among them.
        """
        queries, passages = embeddings.split([batch.num_queries, batch.num_passages])
        of_queries, of_passages = exchanged_shares(batch.num_queries, batch.num_passages)
        more = {}
        if self._takes_hashes:
            more["hashes"] = None if batch.hashes is None else _joined(batch.hashes, of_passages)
        output = self._loss(
            queries,
            of_passages.gather(passages),
            batch.positive_index + of_passages.start,
            **more,
        )
        weight = batch.num_queries / sum(of_queries.sizes)
        metrics = {"loss": output.loss.detach()} | dict(output.metrics)
        totals = world.total(torch.stack([value.detach() for value in metrics.values()]) * weight)
        return LossOutput(
            loss=output.loss * (weight * world.size()),
            metrics=dict(zip(metrics, totals.unbind(), strict=True)),
        )


def _joined(hashes: TextHashes, of_passages: RowShares) -> TextHashes:
    """Return the hashes of this rank's queries and of all ranks' passages."""
    columns = torch.stack([hashes.passages, hashes.answered], dim=1)
    passages, answered = of_passages.gather(columns).unbind(dim=1)
    return replace(hashes, passages=passages, answered=answered)
