"""Add losses, each with its weight."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor, nn

from quarry.errors import UserError
from quarry.losses.base import Loss
from quarry.losses.loss_inputs import LossInputs
from quarry.types import LossOutput


class WeightedSum(Loss):
    """Weighted sum of losses over the same contrastive batch.

    Embeddings of other ranks are gathered once for all of them. A loss with weight 0 is not
    computed.

    Inputs:
        Those of all losses inside.

    Relations:
        InfoNCE with distillation is the usual sum (Qu et al. 2020, arXiv 2010.08191). `Matryoshka`
        around a sum, and a sum of Matryoshkas, are possible.

    Args:
        losses: name -> loss.
        weights: name -> weight, 0 or more; at least one is above 0.
        contrastive_batch_size: queries of a contrastive batch; null: all of an optimizer step.
    """

    def __init__(
        self,
        *,
        losses: Mapping[str, Loss],
        weights: Mapping[str, float],
        contrastive_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        _check_weights(losses, weights)
        used = {name: loss for name, loss in losses.items() if weights[name] > 0}
        self.losses = nn.ModuleDict(used)
        self.weights = {name: float(weights[name]) for name in used}
        self.contrastive_batch_size = contrastive_batch_size

    def forward(self, inputs: LossInputs) -> LossOutput:
        """Return the weighted sum.

        Returns:
            A scalar loss; metrics `NAME/loss` and those of each loss, under its name.
        """
        metrics: dict[str, Tensor] = {}
        total: Tensor | float = 0.0
        for name, loss in self.losses.items():
            output: LossOutput = loss(inputs)
            total = total + self.weights[name] * output.loss
            metrics[f"{name}/loss"] = output.loss.detach()
            metrics |= {f"{name}/{key}": value for key, value in output.metrics.items()}
        assert isinstance(total, Tensor)
        return LossOutput(loss=total, metrics=metrics)


def _remedies(losses: Mapping[str, Loss], weights: Mapping[str, float]) -> list[str]:
    return [
        *(f"~loss.weights.{name}" for name in weights if name not in losses),
        *(f"+loss.weights.{name}=1" for name in losses if name not in weights),
    ]


def _check_weights(losses: Mapping[str, Loss], weights: Mapping[str, float]) -> None:
    if set(losses) != set(weights):
        raise UserError(
            f"loss.weights={dict(weights)}: must name the losses of loss.losses, which are "
            f"{', '.join(losses)}. Fix: {' '.join(_remedies(losses, weights))}"
        )
    for name, weight in weights.items():
        if not 0 <= weight < math.inf:
            raise UserError(
                f"loss.weights.{name}={weight}: must be 0 or more and finite. "
                f"Fix: loss.weights.{name}=1"
            )
    if not any(weights.values()):
        raise UserError(
            f"loss.weights={dict(weights)}: all are 0, and nothing would be trained. "
            f"Fix: loss.weights.{next(iter(weights), 'NAME')}=1"
        )
