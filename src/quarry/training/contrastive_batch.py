"""The loss of a contrast set that is spread over processes: own queries, everybody's passages."""

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
    """Calls a loss with what it needs, whichever process the passages were encoded in.

    Each process compares its own queries with the passages of all. Its loss is scaled so that the
    mean over processes, which is what DDP and ZeRO make of gradients, is the mean over all queries
    of the contrast set, however unevenly they are spread.

    Args:
        loss: (queries, passages, positive_index) -> LossOutput, a mean over queries; one that also
            has an argument `hashes` gets the `TextHashes`.
    """

    def __init__(self, loss: Callable[..., LossOutput]) -> None:
        self._loss = loss
        self._takes_hashes = "hashes" in inspect.signature(loss).parameters

    def __call__(self, embeddings: Tensor, batch: RetrievalBatch) -> LossOutput:
        """For one contrast set, in all processes at once.

        Args:
            embeddings: [num_texts, dim] of this process's batch, queries first.

        Returns:
            This process's share of the loss; `metrics`, with `loss` among them, are those of the
            whole contrast set, on every process.
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
        whole = world.total(torch.stack([value.detach() for value in metrics.values()]) * weight)
        return LossOutput(
            loss=output.loss * (weight * world.size()),
            metrics=dict(zip(metrics, whole.unbind(), strict=True)),
        )


def _joined(hashes: TextHashes, of_passages: RowShares) -> TextHashes:
    """This process's queries beside the passages of all."""
    columns = torch.stack([hashes.passages, hashes.answered], dim=1)
    passages, answered = of_passages.gather(columns).unbind(dim=1)
    return replace(hashes, passages=passages, answered=answered)
