"""Rank graded pairs of texts by their similarity (CoSENT)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from quarry.losses.base import Loss, check_above_zero
from quarry.losses.loss_inputs import LossInputs
from quarry.types import LossOutput


class CoSENT(Loss):
    """Require that a pair with a higher grade is more similar, over all pairs of the batch.

    A pair is a query with one of its passages, its grade the score in the data. The loss is
    log(1 + sum of exp((s_j - s_i) / temperature)) over all i, j where the grade of i is above that
    of j, of all ranks (Su 2022, kexue.fm/archives/8847). It has no mean over queries; it is the
    same on every rank.

    Inputs:
        A score of every passage, the grade; no hard negatives are needed. Grades of different
        queries are compared with one another: they must have one scale.

    Relations:
        sentence-transformers' CoSENTLoss, whose scale of 20 is a temperature of 0.05.
        `KLDistillation` compares within a query alone.

    Args:
        temperature: divides the similarities.
        contrastive_batch_size: queries of a contrastive batch; null: all of an optimizer step.
    """

    needs_scores = True
    needs_grades = True
    takes_weights = False

    def __init__(self, *, temperature: float, contrastive_batch_size: int | None = None) -> None:
        super().__init__()
        check_above_zero("temperature", temperature, usual="0.05 is usual")
        self.temperature = temperature
        self.contrastive_batch_size = contrastive_batch_size

    def forward(self, inputs: LossInputs) -> LossOutput:
        """Return the loss of the contrastive batch."""
        assert inputs.scores is not None, "a loss that needs scores gets them"
        wide = torch.promote_types(inputs.queries.dtype, torch.float32)
        own = (inputs.queries.to(wide)[inputs.groups] * inputs.passages.to(wide)).sum(dim=1)
        similarities = inputs.gathered_by_passage(own)
        grades = inputs.gathered_by_passage(inputs.scores)
        return LossOutput(loss=_cosent(similarities / self.temperature, grades))


def _cosent(logits: Tensor, grades: Tensor) -> Tensor:
    """Return the loss in a time and memory that grow with the number of pairs, not its square."""
    order = grades.argsort()
    logits, grades = logits[order], grades[order]
    num_below = torch.searchsorted(grades, grades)  # those with a lower grade come first
    has_lower = num_below > 0
    lower = logits.logcumsumexp(dim=0)[num_below[has_lower] - 1]
    return softplus((lower - logits[has_lower]).logsumexp(dim=0))
