"""Compute InfoNCE in which hard negatives weigh more."""

from __future__ import annotations

import math

from quarry.errors import UserError
from quarry.losses.base import Loss, check_above_zero
from quarry.losses.chunked_cross_entropy import MAX_SIMILARITIES, chunked_cross_entropy
from quarry.losses.false_negatives import same_texts
from quarry.losses.in_batch import mean_output, wide_embeddings
from quarry.losses.loss_inputs import LossInputs
from quarry.types import LossOutput


class HardnessWeightedInfoNCE(Loss):
    """InfoNCE whose negatives count exp(hardness * similarity) times.

    The more similar a negative is to the query, the more it counts (Lan et al. 2025, arXiv
    2503.04812). The factor carries no gradient. With a hardness of 0 this is `InfoNCE`.

    Inputs:
        Queries with a positive; hard negatives where there are some.

    Relations:
        Robinson et al. 2020 (arXiv 2010.04592) divide such factors by their mean over the batch. A
        smaller temperature of `InfoNCE` stresses hard negatives as well, and the positive with
        them. `MaskedInfoNCE` takes the hardest for false negatives; the two are opposites.

    Args:
        temperature: see `InfoNCE`.
        hardness: 0 or more; 9 is the paper's.
        contrastive_batch_size, masks_same_passage, masks_same_query: see `InfoNCE`.
    """

    def __init__(
        self,
        *,
        temperature: float,
        hardness: float,
        contrastive_batch_size: int | None = None,
        masks_same_passage: bool = False,
        masks_same_query: bool = False,
    ) -> None:
        super().__init__()
        check_above_zero("temperature", temperature, usual="0.01 to 0.1 is usual")
        if not 0 <= hardness < math.inf:
            raise UserError(
                f"loss.hardness={hardness}: must be 0 or more and finite. Fix: loss.hardness=9"
            )
        self.temperature = temperature
        self.hardness = hardness
        self.contrastive_batch_size = contrastive_batch_size
        self.masks = {"same_passage": masks_same_passage, "same_query": masks_same_query}

    def forward(self, inputs: LossInputs) -> LossOutput:
        """Return the mean over queries.

        Returns:
            A scalar loss; metrics `accuracy` (the positive ranks first among the weighted logits)
            and `positive_similarity`.
        """
        queries, passages = wide_embeddings(inputs)
        losses, is_first = chunked_cross_entropy(
            queries,
            passages,
            inputs.positive_index_in_all,
            temperature=self.temperature,
            excluded=same_texts(inputs, **self.masks),
            hardness=self.hardness,
            max_similarities=MAX_SIMILARITIES,
        )
        return mean_output(inputs, losses, is_first, queries=queries, passages=passages)
