"""Train several widths of an embedding at once, around any loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from torch import Tensor
from torch.nn.functional import normalize as normalized

from quarry.errors import UserError
from quarry.losses.base import Loss
from quarry.losses.loss_inputs import LossInputs
from quarry.types import LossOutput


class Matryoshka(Loss):
    """Weighted sum of a loss over the first entries of the embeddings, for each of some widths.

    Embeddings are cut and normalized again (Kusupati et al. 2022, arXiv 2205.13147). The trained
    model can be used with any of the widths: `model.embedding_dim`.

    Inputs:
        Those of the loss inside.

    Relations:
        sentence-transformers' MatryoshkaLoss. Embeddings of other ranks are gathered once, at full
        width.

    Args:
        loss: computed for each width.
        dims: widths, each up to the model's.
        dim_weights: one for each width; null: 1 each.
        normalize: whether the model's embeddings have length 1.
        contrastive_batch_size: queries of a contrastive batch; null: all of an optimizer step.
    """

    def __init__(
        self,
        *,
        loss: Loss,
        dims: Sequence[int],
        dim_weights: Sequence[float] | None = None,
        normalize: bool = True,
        contrastive_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        _check_dims(dims, dim_weights)
        for inner in loss.inner_losses():
            if inner.needs_full_width:
                raise UserError(
                    f"loss.loss: {type(inner).__name__} compares complete embeddings, and cannot "
                    "be inside Matryoshka. Fix: loss=sum with both in it"
                )
        self.loss = loss
        self.dims = tuple(dims)
        self.dim_weights = tuple(dim_weights or [1.0] * len(dims))
        self.normalize = normalize
        self.contrastive_batch_size = contrastive_batch_size
        self.largest_dim = max(dims)

    def forward(self, inputs: LossInputs) -> LossOutput:
        """Return the weighted sum over widths.

        Returns:
            A scalar loss; metrics `dim_64/loss` and those of the loss inside, for each width.
        """
        metrics: dict[str, Tensor] = {}
        total: Tensor | float = 0.0
        for dim, weight in zip(self.dims, self.dim_weights, strict=True):
            is_full = dim == inputs.queries.shape[1]
            cut = inputs if is_full else inputs.mapped(partial(self._cut, dim=dim))
            output: LossOutput = self.loss(cut)
            total = total + weight * output.loss
            metrics[f"dim_{dim}/loss"] = output.loss.detach()
            metrics |= {f"dim_{dim}/{name}": value for name, value in output.metrics.items()}
        assert isinstance(total, Tensor)
        return LossOutput(loss=total, metrics=metrics)

    def _cut(self, embeddings: Tensor, *, dim: int) -> Tensor:
        first = embeddings[:, :dim]
        if not self.normalize:
            return first
        return normalized(first if first.dtype.itemsize > 4 else first.float(), dim=-1)


def _check_dims(dims: Sequence[int], weights: Sequence[float] | None) -> None:
    shown = list(dims)
    if not dims or min(dims) < 1 or len(set(dims)) < len(dims):
        raise UserError(
            f"loss.dims={shown}: must be different widths of 1 or more. Fix: loss.dims=[256,128,64]"
        )
    if weights is not None and (
        len(weights) != len(dims) or not all(0 < weight < math.inf for weight in weights)
    ):
        raise UserError(
            f"loss.dim_weights={list(weights)}: must be a number above 0 for each of "
            f"loss.dims={shown}. Fix: loss.dim_weights=null"
        )
