"""No adapter: every weight that text goes through is trained."""

from __future__ import annotations

from transformers import PreTrainedModel

from quarry.models.adapters.base import TrainedPart
from quarry.models.backbones.text_model import text_model


class FullFineTuning:
    """Leaves the trunk as it is, trainable; towers that no text goes through are frozen."""

    trains_trunk = True

    def __call__(self, backbone: PreTrainedModel) -> PreTrainedModel:
        backbone.requires_grad_(False)
        text_model(backbone).requires_grad_(True)
        return backbone

    def trained_part(self, backbone: PreTrainedModel) -> TrainedPart:
        num_parameters = sum(p.numel() for p in text_model(backbone).parameters())
        return TrainedPart(num_parameters=num_parameters, is_beside=False)
