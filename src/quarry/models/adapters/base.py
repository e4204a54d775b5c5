"""What an adapter is: something that decides which weights of a trunk are trained."""

from __future__ import annotations

from typing import Protocol

from transformers import PreTrainedModel


class Adapter(Protocol):
    """Takes a trunk and hands back the module to train, its parameters' requires_grad set.

    Attributes:
        trains_trunk: whether the trunk's own weights are trained, not only new ones beside them.
    """

    trains_trunk: bool

    def __call__(self, backbone: PreTrainedModel) -> PreTrainedModel: ...
