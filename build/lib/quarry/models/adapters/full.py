"""No adapter: every weight of the trunk is trained."""

from __future__ import annotations

from transformers import PreTrainedModel


class FullFineTuning:
    """Leaves the trunk as it is, all weights trainable."""

    def __call__(self, backbone: PreTrainedModel) -> PreTrainedModel:
        return backbone.requires_grad_(True)
