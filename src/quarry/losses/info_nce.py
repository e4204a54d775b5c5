"""Compute InfoNCE, the contrastive loss with in-batch negatives and hard negatives."""

from __future__ import annotations

import torch
from torch import Tensor

from quarry.errors import UserError
from quarry.losses.base import Loss
from quarry.losses.chunked_cross_entropy import MAX_SIMILARITIES, Excluded, chunked_cross_entropy
from quarry.losses.loss_inputs import LossInputs
from quarry.types import LossOutput


class InfoNCE(Loss):
    """Cross entropy of a query's positive against all passages of the contrastive batch.

    The passages of the other queries are in_batch_negatives, a query's own further passages its
    hard_negatives (van den Oord et al. 2018, arXiv 1807.03748; Karpukhin et al. 2020, arXiv
    2004.04906). They are those of all ranks. The similarities are fp32 or wider and computed in
    chunks of rows, so that batches may have any size.

    A passage that answers two queries of a batch counts as a negative of one of them, as in the
    study's recipe, unless a mask says otherwise. A mask leaves passages out of the loss of a query,
    never the query's own positive.

    Args:
        temperature: divides the similarities; a small one sharpens. RepLLaMA uses 0.01.
        contrastive_batch_size: queries (with their passages) that are compared with one another;
            null: all queries of an optimizer step. Smaller than `data.global_batch_size`, a
            step accumulates several contrastive batches.
        masks_same_passage: a passage with the same text as the query's positive is not a negative.
        masks_same_query: the positive of another query with the same text is not a negative. (Its
            hard negatives are: they were judged against this very text.)
    """

    def __init__(
        self,
        *,
        temperature: float,
        contrastive_batch_size: int | None = None,
        masks_same_passage: bool = False,
        masks_same_query: bool = False,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise UserError(
                f"loss.temperature={temperature} must be above 0 (0.01 to 0.1 is usual)."
            )
        self.temperature = temperature
        self.contrastive_batch_size = contrastive_batch_size
        self.masks_same_passage = masks_same_passage
        self.masks_same_query = masks_same_query

    def forward(self, inputs: LossInputs) -> LossOutput:
        """Return the mean over queries.

        Returns:
            A scalar loss; metrics `accuracy` (the positive ranks first) and `positive_similarity`.
        """
        wide = torch.promote_types(inputs.queries.dtype, torch.float32)
        queries, passages = inputs.queries.to(wide), inputs.all_passages.to(wide)
        positive_index = inputs.positive_index_in_all
        losses, is_first = chunked_cross_entropy(
            queries,
            passages,
            positive_index,
            temperature=self.temperature,
            excluded=self._false_negatives(inputs),
            max_similarities=MAX_SIMILARITIES,
        )
        with torch.no_grad():
            positive = (queries * passages[positive_index]).sum(dim=1)
        return LossOutput(
            loss=inputs.mean(losses),
            metrics={
                "accuracy": inputs.mean(is_first.float()),
                "positive_similarity": inputs.mean(positive),
            },
        )

    def _false_negatives(self, inputs: LossInputs) -> Excluded | None:
        if not (self.masks_same_passage or self.masks_same_query):
            return None
        hashes, every = inputs.hashes, inputs.all_hashes
        assert hashes is not None, "the masks compare texts by their hashes"
        assert every is not None
        own_queries, passages, answered = hashes.queries, every.passages, every.answered
        positives = hashes.passages[inputs.positive_index]

        def excluded(rows: slice) -> Tensor:
            mask = torch.zeros((), dtype=torch.bool, device=positives.device)
            if self.masks_same_passage:
                mask = mask | (positives[rows, None] == passages)
            if self.masks_same_query:
                mask = mask | (own_queries[rows, None] == answered)
            return mask

        return excluded
