"""Train all weights of the text model, without an adapter."""

from __future__ import annotations

from transformers import PreTrainedModel

from quarry.models.adapters.base import TrainedPart
from quarry.models.backbones.text_model import text_model


class FullFineTuning:
    """Makes all weights of the text model trainable, and freezes other towers (vision)."""

    trains_backbone = True

    def __call__(self, backbone: PreTrainedModel) -> PreTrainedModel:
        backbone.requires_grad_(False)
        text_model(backbone).requires_grad_(True)
        return backbone

    def trained_part(self, backbone: PreTrainedModel) -> TrainedPart:
        num_parameters = sum(p.numel() for p in text_model(backbone).parameters())
        return TrainedPart(num_parameters=num_parameters, is_beside=False)
