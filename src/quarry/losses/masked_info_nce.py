"""Compute InfoNCE without the passages that are too similar to be negatives."""

from __future__ import annotations

import math
from typing import get_args

from quarry.errors import UserError
from quarry.losses.base import Loss, check_above_zero
from quarry.losses.chunked_cross_entropy import MAX_SIMILARITIES, chunked_cross_entropy
from quarry.losses.false_negatives import MarginKind, any_of, beyond_margin, same_texts
from quarry.losses.in_batch import mean_output, wide_embeddings
from quarry.losses.loss_inputs import LossInputs
from quarry.types import LossOutput


class MaskedInfoNCE(Loss):
    """InfoNCE in which a passage counts as a negative only below the positive less a margin.

    A passage that the model finds more similar to the query than that is taken for a false
    negative and left out, in-batch and hard negatives alike. The similarities are the model's own,
    without gradient.

    - absolute: left out above `positive - margin`. A margin of -0.1 is Qwen3-Embedding's (Zhang et
      al. 2025, arXiv 2506.05176): left out above `positive + 0.1`.
    - relative: left out above `positive - margin * |positive|`. A margin of 0.05 keeps what has up
      to 95 % of the positive's similarity, the threshold that NV-Retriever mines by (Moreira et al.
      2024, arXiv 2407.15831).

    Inputs:
        Queries with a positive; hard negatives where there are some.

    Relations:
        sentence-transformers' GISTEmbedLoss takes the similarities of a second model, the guide
        (Solatorio 2024, arXiv 2402.16829); its margins have the same sign. `InfoNCE` masks by equal
        texts alone.

    Args:
        temperature: see `InfoNCE`.
        margin: see above.
        margin_kind: absolute or relative.
        contrastive_batch_size, masks_same_passage, masks_same_query: see `InfoNCE`.
    """

    def __init__(
        self,
        *,
        temperature: float,
        margin: float,
        margin_kind: MarginKind = "absolute",
        contrastive_batch_size: int | None = None,
        masks_same_passage: bool = False,
        masks_same_query: bool = False,
    ) -> None:
        super().__init__()
        check_above_zero("temperature", temperature, usual="0.01 to 0.1 is usual")
        if not math.isfinite(margin):
            raise UserError(f"loss.margin={margin}: must be a finite number. Fix: loss.margin=-0.1")
        if margin_kind not in get_args(MarginKind):
            raise UserError(
                f"loss.margin_kind={margin_kind}: unknown (absolute, relative). "
                "Fix: loss.margin_kind=absolute"
            )
        self.temperature = temperature
        self.margin = margin
        self.margin_kind = margin_kind
        self.contrastive_batch_size = contrastive_batch_size
        self.masks = {"same_passage": masks_same_passage, "same_query": masks_same_query}

    def forward(self, inputs: LossInputs) -> LossOutput:
        """Return the mean over queries.

        Returns:
            A scalar loss; metrics `accuracy` (the positive ranks first among what is compared) and
            `positive_similarity`.
        """
        queries, passages = wide_embeddings(inputs)
        positive_index = inputs.positive_index_in_all
        margin = beyond_margin(
            queries, passages, positive_index, margin=self.margin, kind=self.margin_kind
        )
        losses, is_first = chunked_cross_entropy(
            queries,
            passages,
            positive_index,
            temperature=self.temperature,
            excluded=any_of(same_texts(inputs, **self.masks), margin),
            max_similarities=MAX_SIMILARITIES,
        )
        return mean_output(inputs, losses, is_first, queries=queries, passages=passages)
