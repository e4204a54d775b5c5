"""A loss is a module: its optimizer groups, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from quarry.errors import UserError
from quarry.losses.base import Loss, checked_loss, loss_groups
from quarry.losses.info_nce import InfoNCE


class Scaled(Loss):
    """A number, and perhaps a loss inside."""

    def __init__(self, inner: Loss | None = None, **group: object) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.fixed = nn.Parameter(torch.ones(1), requires_grad=False)
        self.inner = inner
        if group:
            self.optimizer_group = group


def test_a_parameter_is_in_the_group_that_its_loss_names() -> None:
    loss = Scaled(name="scale", lr=0.5)
    (group,) = loss_groups(loss)
    assert group == {"name": "scale", "lr": 0.5, "params": [loss.scale]}
    assert loss_groups(InfoNCE(temperature=0.1)) == []


def test_losses_inside_a_loss_keep_their_groups_and_share_one_by_its_name() -> None:
    inner = Scaled(name="other", lr=0.1)
    outer = Scaled(Scaled(inner))
    shared, other = loss_groups(outer)
    assert shared["name"] == "loss"
    assert shared["params"] == [outer.scale, outer.inner.scale]  # type: ignore[union-attr]
    assert other["params"] == [inner.scale]


def test_one_name_with_two_settings_is_refused() -> None:
    with pytest.raises(UserError, match="optimizer group 'mine'"):
        loss_groups(Scaled(Scaled(name="mine", lr=1.0), name="mine", lr=2.0))


def test_what_is_no_loss_is_refused() -> None:
    def old(queries: object, passages: object, positive_index: object) -> None: ...

    for other in (old, nn.Linear(1, 1)):
        with pytest.raises(UserError, match=r"no loss .* quarry\.losses\.base\.Loss"):
            checked_loss(other)
