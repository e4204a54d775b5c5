"""Distill the vectors of a teacher, text by text."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from quarry.errors import UserError
from quarry.losses.base import Loss
from quarry.losses.loss_inputs import LossInputs
from quarry.losses.teacher_vectors import TeacherVectors
from quarry.types import LossOutput

Measure = Literal["mse", "cosine"]


class EmbeddingDistillation(Loss):
    """Distance of each embedding from the teacher's vector of the same text.

    Queries, positives and hard negatives count alike within a query; then the mean over queries is
    taken. No text is compared with another one (Reimers and Gurevych 2020, arXiv 2004.09813; for
    retrieval: Campos et al. 2023, arXiv 2304.01016).

    Inputs:
        The teacher's vector of every training text, as wide as the model's embeddings: a file that
        `quarry.losses.teacher_vectors.write_teacher_vectors` writes.

    Relations:
        sentence-transformers' MSELoss averages over texts at once, which is the same where all
        queries have as many passages. `KLDistillation` and `MarginMSE` need scores only, and leave
        the model its own geometry.

    Args:
        vectors: the file.
        measure: mse: the mean of squared differences over the entries; cosine: 1 - cosine, for
            which lengths do not count.
        contrastive_batch_size: queries of a contrastive batch; null: all of an optimizer step.
    """

    needs_full_width = True

    def __init__(
        self, *, vectors: str, measure: Measure = "mse", contrastive_batch_size: int | None = None
    ) -> None:
        super().__init__()
        if measure not in get_args(Measure):
            raise UserError(f"loss.measure={measure}: unknown (mse, cosine). Fix: loss.measure=mse")
        self.measure = measure
        self.teacher = TeacherVectors(vectors)
        self.contrastive_batch_size = contrastive_batch_size

    def forward(self, inputs: LossInputs) -> LossOutput:
        """Return the mean over queries.

        Returns:
            A scalar loss; the metric `teacher_cosine`, of the queries.
        """
        assert inputs.hashes is not None, "vectors are found by the hashes of the texts"
        wide = torch.promote_types(inputs.queries.dtype, torch.float32)
        queries, passages = inputs.queries.to(wide), inputs.passages.to(wide)
        of_queries = self.teacher.of(inputs.hashes.queries, like=queries)
        of_passages = self.teacher.of(inputs.hashes.passages, like=passages)
        by_query = self._distances(queries, of_queries).index_add(
            0, inputs.groups, self._distances(passages, of_passages)
        )
        num_texts = 1 + torch.bincount(inputs.groups, minlength=len(queries))
        with torch.no_grad():
            cosine = cosine_similarity(queries, of_queries)
        return LossOutput(
            loss=inputs.mean(by_query / num_texts), metrics={"teacher_cosine": inputs.mean(cosine)}
        )

    def _distances(self, found: Tensor, wanted: Tensor) -> Tensor:
        if self.measure == "mse":
            return (found - wanted).square().mean(dim=1)
        return 1 - cosine_similarity(found, wanted)
