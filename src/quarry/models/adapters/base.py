"""What an adapter is: something that decides which weights of a trunk are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedPart:
    """What an adapter would train of a trunk.

    Attributes:
        is_beside: new weights beside the trunk's, in fp32 whatever the trunk's are in.
        num_inputs: numbers of each token that go into layers with new weights beside them.
        num_low_rank: those between two new matrices: the ranks of all layers.
        dropout: on the input of new weights.
    """

    num_parameters: int
    is_beside: bool
    num_inputs: int = 0
    num_low_rank: int = 0
    dropout: float = 0.0


NOTHING = TrainedPart(num_parameters=0, is_beside=True)


class Adapter(Protocol):
    """Takes a trunk and hands back the module to train, its parameters' requires_grad set.

    Attributes:
        trains_trunk: whether the trunk's own weights are trained, not only new ones beside them.
    """

    trains_trunk: bool

    def __call__(self, backbone: PreTrainedModel) -> PreTrainedModel: ...

    def trained_part(self, backbone: PreTrainedModel) -> TrainedPart:
        """What a call would train; the trunk is left as it is and may have no memory behind it."""
        ...
