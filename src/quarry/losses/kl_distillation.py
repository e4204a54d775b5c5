"""Distill a teacher's scores over the passages of each query by their KL divergence."""

from __future__ import annotations

import torch

from quarry.losses.base import Loss, check_above_zero
from quarry.losses.loss_inputs import LossInputs
from quarry.types import LossOutput


class KLDistillation(Loss):
    """KL divergence of the model's distribution over a query's passages from the teacher's.

    Both are a softmax over the positive and the hard negatives of the query (Hinton et al. 2015,
    arXiv 1503.02531; over retrieval groups: Ren et al. 2021, arXiv 2110.07367). In-batch negatives
    have no scores and take no part.

    Inputs:
        A teacher's score of every passage, at least one hard negative for every query. Groups may
        differ in size.

    Relations:
        sentence-transformers' DistillKLDivLoss has one temperature for both and multiplies the loss
        by its square. `MarginMSE` fits differences of scores instead of their order of magnitude.
        `InfoNCE` in a sum with this one adds in-batch negatives.

    Args:
        temperature: divides the similarities.
        teacher_temperature: divides the teacher's scores. 1 suits logits of a cross-encoder,
            something like `temperature` suits a teacher's cosines.
        contrastive_batch_size: queries of a contrastive batch; null: all of an optimizer step.
    """

    needs_scores = True
    needs_hard_negatives = True

    def __init__(
        self,
        *,
        temperature: float,
        teacher_temperature: float = 1.0,
        contrastive_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        check_above_zero("temperature", temperature, usual="0.01 to 0.1 is usual")
        check_above_zero("teacher_temperature", teacher_temperature, usual="1 is usual")
        self.temperature = temperature
        self.teacher_temperature = teacher_temperature
        self.contrastive_batch_size = contrastive_batch_size

    def forward(self, inputs: LossInputs) -> LossOutput:
        """Return the mean over queries.

        Returns:
            A scalar loss; the metric `agreement`: model and teacher have the same passage first.
        """
        similarities, is_there = inputs.group_similarities()
        student = (similarities / self.temperature).masked_fill(~is_there, -torch.inf)
        scores = inputs.group_scores(similarities.dtype) / self.teacher_temperature
        teacher = scores.masked_fill(~is_there, -torch.inf)
        log_ratio = teacher.log_softmax(dim=1) - student.log_softmax(dim=1)
        losses = (teacher.softmax(dim=1) * log_ratio.masked_fill(~is_there, 0)).sum(dim=1)
        is_same = student.argmax(dim=1) == teacher.argmax(dim=1)
        return LossOutput(
            loss=inputs.mean(losses), metrics={"agreement": inputs.mean(is_same.float())}
        )
