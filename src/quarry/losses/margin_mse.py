"""Fit the differences of a teacher's scores between positive and hard negatives."""

from __future__ import annotations

from quarry.losses.base import Loss, check_above_zero
from quarry.losses.loss_inputs import LossInputs
from quarry.types import LossOutput


class MarginMSE(Loss):
    """Squared error of the margin between a query's positive and each hard negative.

    The margin is the difference of two similarities; its target is that of the teacher's scores
    (Hofstaetter et al. 2020, arXiv 2010.02666). The error is averaged over the hard negatives of a
    query, then over queries.

    Inputs:
        A teacher's score of every passage, at least one hard negative for every query. Groups may
        differ in size.

    Relations:
        sentence-transformers' MarginMSELoss averages over all pairs at once, which is the same
        where all queries have as many hard negatives. `KLDistillation` compares distributions, so
        that the unit of the scores matters less.

    Args:
        temperature: divides the similarities. Cosines differ by at most 2, logits of a
            cross-encoder by 10 and more: 0.1 brings both to one scale. 1: as they are.
        contrastive_batch_size: queries of a contrastive batch; null: all of an optimizer step.
    """

    needs_scores = True
    needs_hard_negatives = True

    def __init__(self, *, temperature: float, contrastive_batch_size: int | None = None) -> None:
        super().__init__()
        check_above_zero("temperature", temperature, usual="0.1 for logits of a cross-encoder")
        self.temperature = temperature
        self.contrastive_batch_size = contrastive_batch_size

    def forward(self, inputs: LossInputs) -> LossOutput:
        """Return the mean over queries.

        Returns:
            A scalar loss; the metric `margin`, the model's mean margin.
        """
        similarities, is_there = inputs.group_similarities()
        student = similarities / self.temperature
        teacher = inputs.group_scores(student.dtype)
        is_negative = is_there[:, 1:]
        margins = student[:, :1] - student[:, 1:]
        errors = (margins - (teacher[:, :1] - teacher[:, 1:])).square()
        num_negatives = is_negative.sum(dim=1)
        losses = errors.masked_fill(~is_negative, 0).sum(dim=1) / num_negatives
        mean_margins = margins.detach().masked_fill(~is_negative, 0).sum(dim=1) / num_negatives
        return LossOutput(loss=inputs.mean(losses), metrics={"margin": inputs.mean(mean_margins)})
