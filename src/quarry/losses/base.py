"""Define what every loss is: a module that receives `LossInputs` and names what it needs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from torch import nn
from torch.nn import Parameter

from quarry.errors import UserError
from quarry.losses.loss_inputs import LossInputs
from quarry.types import LossOutput


class Loss(nn.Module):
    """A loss of a contrastive batch; its parameters are trained with the model's.

    Subclasses define `forward`. Parameters, buffers and losses inside it are found as in every
    torch module: they are trained, saved and resumed with the model, and moved to its device.

    `forward` returns the mean over this rank's queries (`LossInputs.mean`). The loss of the
    contrastive batch averages the ranks' means by their number (or weight) of queries. A loss that
    is no mean over queries (CoSENT) must return the same value on every rank.

    Attributes:
        needs_scores: a teacher's score of every passage; data that lack one are refused.
        needs_grades: the scores must differ somewhere in the data.
        needs_hard_negatives: at least one hard negative for every query.
        needs_full_width: it cannot be computed for cut embeddings.
        takes_weights: whether queries can have weights in the data.
        largest_dim: width that the embeddings must have at least.
        optimizer_group: name of the optimizer's group of the loss's own parameters, and further
            settings of it, such as `lr`; what it leaves out is the optimizer's.
    """

    needs_scores: ClassVar[bool] = False
    needs_grades: ClassVar[bool] = False
    needs_hard_negatives: ClassVar[bool] = False
    needs_full_width: ClassVar[bool] = False
    takes_weights: ClassVar[bool] = True
    largest_dim: int = 1
    optimizer_group: Mapping[str, Any] = MappingProxyType({"name": "loss", "weight_decay": 0.0})

    def forward(self, inputs: LossInputs) -> LossOutput:
        raise NotImplementedError

    def inner_losses(self) -> Iterator[Loss]:
        """Yield this loss and those inside it."""
        for module in self.modules():
            if isinstance(module, Loss):
                yield module


def check_above_zero(name: str, value: float, *, usual: str) -> None:
    """Refuse an argument that is not above 0.

    Raises:
        UserError: with the key.
    """
    if not 0 < value < math.inf:
        raise UserError(
            f"loss.{name}={value}: must be above 0 and finite ({usual}). Fix: loss.{name}=NUMBER"
        )


def checked_loss(loss: object) -> Loss:
    """Return a loss; refuse anything else.

    Raises:
        UserError: it is no `Loss`.
    """
    if isinstance(loss, Loss):
        return loss
    name = getattr(loss, "__qualname__", type(loss).__qualname__)
    raise UserError(
        f"loss={name}: is no loss of this version (a class that inherits quarry.losses.base.Loss, "
        "whose forward receives one LossInputs). Fix: derive it as docs/extending.md shows"
    )


def loss_groups(loss: Loss) -> list[dict[str, Any]]:
    """Return the optimizer's groups of the trained parameters of a loss and those inside it.

    A parameter is in the group of the innermost loss that has it. Losses share a group by its name.

    Raises:
        UserError: two losses give a group of one name different settings.
    """
    groups: dict[str, dict[str, Any]] = {}
    for owner, parameters in _owned(loss).items():
        settings = {"name": "loss", **owner.optimizer_group}
        group = groups.setdefault(settings["name"], {"params": [], **settings})
        if {key: value for key, value in group.items() if key != "params"} != settings:
            raise UserError(
                f"loss: two losses name the optimizer group {settings['name']!r} with different "
                "settings. Fix: another name in optimizer_group of one of them"
            )
        group["params"] += parameters
    return list(groups.values())


def _owned(loss: Loss) -> dict[Loss, list[Parameter]]:
    """Return each loss that has trained parameters of its own, outer ones first."""
    owners: dict[Parameter, Loss] = {}
    for inner in loss.inner_losses():  # an outer loss comes before those inside it
        for parameter in inner.parameters():
            if parameter.requires_grad:
                owners[parameter] = inner
    found: dict[Loss, list[Parameter]] = {}
    for parameter, owner in owners.items():
        found.setdefault(owner, []).append(parameter)
    return found
