"""Define the interface of adapters, which decide which weights of a backbone are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedPart:
    """Sizes of what an adapter would train of a backbone.

    Attributes:
        num_parameters: number of trained parameters.
        is_beside: they are new weights beside the backbone's, in fp32 whatever its dtype.
        num_inputs: sum of the input widths of all layers with new weights.
        num_low_rank: sum of the ranks of all layers.
        dropout: dropout probability on the input of new weights.
    """

    num_parameters: int
    is_beside: bool
    num_inputs: int = 0
    num_low_rank: int = 0
    dropout: float = 0.0


NOTHING = TrainedPart(num_parameters=0, is_beside=True)


class Adapter(Protocol):
    """Callable that turns a backbone into the module to train, with requires_grad set.

    Attributes:
        trains_backbone: whether the backbone's own weights are trained, not only new ones.
    """

    trains_backbone: bool

    def __call__(self, backbone: PreTrainedModel) -> PreTrainedModel: ...

    def trained_part(self, backbone: PreTrainedModel) -> TrainedPart:
        """Return the sizes of what a call would train, without changing the backbone.

        The backbone may be on the meta device.
        """
        ...
