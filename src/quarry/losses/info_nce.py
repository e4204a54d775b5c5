"""Compute InfoNCE, the contrastive loss with in-batch negatives and hard negatives."""

from __future__ import annotations

import torch
from torch import Tensor

from quarry.losses.base import Loss, check_above_zero
from quarry.losses.chunked_cross_entropy import MAX_SIMILARITIES, Excluded, chunked_cross_entropy
from quarry.losses.false_negatives import same_pairs, same_texts
from quarry.losses.in_batch import mean_output, wide_embeddings
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

    Inputs:
        Queries with a positive; hard negatives where there are some.

    Relations:
        `KLDistillation` and `MarginMSE` use a teacher's scores instead of "positive or not".
        `MaskedInfoNCE` leaves out passages by their similarity, `HardnessWeightedInfoNCE` weighs
        them. `symmetric` is the loss of CLIP (Radford et al. 2021, arXiv 2103.00020). All three
        terms together are close to the improved contrastive loss of GTE (Li et al. 2023, arXiv
        2308.03281).

    Args:
        temperature: divides the similarities; a small one sharpens. RepLLaMA uses 0.01.
        contrastive_batch_size: queries (with their passages) that are compared with one another;
            null: all queries of an optimizer step. Smaller than `data.global_batch_size`, a
            step accumulates several contrastive batches.
        masks_same_passage: a passage with the same text as the query's positive is not a negative.
        masks_same_query: the positive of another query with the same text is not a negative. (Its
            hard negatives are: they were judged against this very text.)
        query_to_query: the other queries are negatives of a query, too.
        document_to_document: the positives of the other queries are negatives of a query's
            positive, too. They join the same cross entropy.
        symmetric: the mean of this loss and of the cross entropy of a positive's query against all
            queries.
    """

    def __init__(
        self,
        *,
        temperature: float,
        contrastive_batch_size: int | None = None,
        masks_same_passage: bool = False,
        masks_same_query: bool = False,
        query_to_query: bool = False,
        document_to_document: bool = False,
        symmetric: bool = False,
    ) -> None:
        super().__init__()
        check_above_zero("temperature", temperature, usual="0.01 to 0.1 is usual")
        self.temperature = temperature
        self.contrastive_batch_size = contrastive_batch_size
        self.masks = {"same_passage": masks_same_passage, "same_query": masks_same_query}
        self.query_to_query = query_to_query
        self.document_to_document = document_to_document
        self.symmetric = symmetric

    def forward(self, inputs: LossInputs) -> LossOutput:
        """Return the mean over queries.

        Returns:
            A scalar loss; metrics `accuracy` (the positive ranks first among all that its query is
            compared with) and `positive_similarity`.
        """
        queries, passages = wide_embeddings(inputs)
        positive_index = inputs.positive_index_in_all
        rows, columns, excluded = self._compared(inputs, queries, passages)
        losses, is_first = chunked_cross_entropy(
            rows,
            columns,
            positive_index,
            temperature=self.temperature,
            excluded=excluded,
            max_similarities=MAX_SIMILARITIES,
        )
        if self.symmetric:
            losses = (losses + self._of_positives(inputs, passages[positive_index])) / 2
        return mean_output(inputs, losses, is_first, queries=queries, passages=passages)

    def _compared(
        self, inputs: LossInputs, queries: Tensor, passages: Tensor
    ) -> tuple[Tensor, Tensor, Excluded | None]:
        """Return the rows and columns whose inner products are compared, and what is left out.

        A query beside its positive is one row: half of it meets queries and passages, the other
        half meets positives.
        """
        by_text = same_texts(inputs, **self.masks)
        if not (self.query_to_query or self.document_to_document):
            return queries, passages, by_text
        own_pairs = same_pairs(inputs, **self.masks)
        columns = [passages]
        if self.query_to_query:
            columns.append(inputs.all_queries.to(queries.dtype))
        if self.document_to_document:
            zeros = torch.zeros_like
            positives = passages[inputs.all_positive_index]
            columns = [torch.cat([each, zeros(each)], dim=1) for each in columns]
            columns.append(torch.cat([zeros(positives), positives], dim=1))
            queries = torch.cat([queries, passages[inputs.positive_index_in_all]], dim=1)

        def excluded(rows: slice) -> Tensor:
            pairs = own_pairs(rows)
            of_passages = pairs.new_zeros(len(pairs), len(passages))
            if by_text is not None:
                of_passages = of_passages | by_text(rows)
            return torch.cat([of_passages, *([pairs] * (len(columns) - 1))], dim=1)

        return queries, torch.cat(columns), excluded

    def _of_positives(self, inputs: LossInputs, positives: Tensor) -> Tensor:
        """Return the cross entropy of each own positive's query against all queries."""
        start = inputs.of_queries.start
        losses, _ = chunked_cross_entropy(
            positives,
            inputs.all_queries.to(positives.dtype),
            torch.arange(start, start + len(positives), device=positives.device),
            temperature=self.temperature,
            excluded=same_pairs(inputs, **self.masks) if any(self.masks.values()) else None,
            max_similarities=MAX_SIMILARITIES,
        )
        return losses
