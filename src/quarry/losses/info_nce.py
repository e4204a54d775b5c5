"""InfoNCE: each query must find its positive among all passages of the contrast set."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from quarry.errors import UserError
from quarry.types import LossOutput


class InfoNCE:
    """Cross entropy of a query's positive against every passage in the contrast set.

    The passages of the other queries are in_batch_negatives, a query's own further passages its
    hard_negatives (van den Oord et al. 2018, arXiv 1807.03748; Karpukhin et al. 2020, arXiv
    2004.04906). A passage that answers two queries of a contrast set counts as a negative of one of
    them, as in the study's recipe. No gather happens here: what is handed over is the contrast set.

    Args:
        temperature: what similarities are divided by; small sharpens. RepLLaMA uses 0.01.
        num_contrast_queries: queries (with their passages) that are compared with one another;
            null: all queries of an update. Smaller than `data.num_queries_per_update`, an update
            accumulates several contrast sets.
    """

    def __init__(self, *, temperature: float, num_contrast_queries: int | None = None) -> None:
        if not temperature > 0:
            raise UserError(
                f"loss.temperature={temperature} must be above 0 (0.01 to 0.1 is usual)."
            )
        self.temperature = temperature
        self.num_contrast_queries = num_contrast_queries

    def __call__(self, queries: Tensor, passages: Tensor, positive_index: Tensor) -> LossOutput:
        """The mean over queries.

        Args:
            queries: [num_queries, dim], fp32 or wider.
            passages: [num_passages, dim].
            positive_index: [num_queries], the row of `passages` that answers each query.

        Returns:
            A scalar loss; metrics `accuracy` (the positive ranks first) and `positive_similarity`.
        """
        similarities = queries @ passages.T
        loss = cross_entropy(similarities / self.temperature, positive_index)
        with torch.no_grad():
            positive = similarities.gather(1, positive_index[:, None]).squeeze(1)
            accuracy = (similarities.argmax(dim=1) == positive_index).float().mean()
        return LossOutput(
            loss=loss, metrics={"accuracy": accuracy, "positive_similarity": positive.mean()}
        )
