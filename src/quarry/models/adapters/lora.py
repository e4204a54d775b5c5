"""Apply, merge and check LoRA adapters (arXiv 2106.09685) through peft."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from quarry.errors import UserError
from quarry.models.adapters.base import TrainedPart
from quarry.models.adapters.stored_adapter import ADAPTER_FILE
from quarry.models.backbones.text_model import text_model, text_model_name

logger = logging.getLogger(__name__)


class LoRA:
    """Freezes the backbone and adds trainable rank-r matrices B A to the named linear layers.

    In a vision-language backbone only the language model gets them: the vision tower has layers
    of the same names.

    Args:
        r: rank.
        alpha: B A is scaled by alpha / r.
        dropout: dropout probability on the input of A.
        target_modules: names of the linear layers, such as "q_proj".

    Raises:
        UserError: `r` or `dropout` is out of range; from a call or `trained_part`: no layer has
            such a name.
    """

    trains_backbone = False

    def __init__(
        self, *, r: int, alpha: int, dropout: float, target_modules: Sequence[str]
    ) -> None:
        if r < 1 or not 0 <= dropout < 1:
            raise UserError(
                f"model.adapter.r={r}, model.adapter.dropout={dropout}: r must be at least 1, and "
                "dropout at least 0 and below 1. Fix: model.adapter.dropout=0.1"
            )
        self.r = r
        self.alpha = alpha
        self.dropout = dropout
        self.target_modules = list(target_modules)

    def __call__(self, backbone: PreTrainedModel) -> PreTrainedModel:
        config = LoraConfig(
            task_type=TaskType.FEATURE_EXTRACTION,
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=self._targets(backbone),
        )
        self._check_targets(backbone)
        try:
            adapted = get_peft_model(backbone, config)
        except ValueError as error:
            raise UserError(
                f"LoRA does not fit {type(backbone).__name__}: {error} Fix: set "
                "model.adapter.target_modules to names of its linear layers."
            ) from error
        return cast(PreTrainedModel, adapted)

    def trained_part(self, backbone: PreTrainedModel) -> TrainedPart:
        self._check_targets(backbone)
        layers = [
            layer
            for name, layer in text_model(backbone).named_modules()
            if isinstance(layer, nn.Linear) and self._is_target(name)
        ]
        return TrainedPart(
            num_parameters=sum(self.r * (x.in_features + x.out_features) for x in layers),
            is_beside=True,
            num_inputs=sum(layer.in_features for layer in layers),
            num_low_rank=self.r * len(layers),
            dropout=self.dropout,
        )

    def _check_targets(self, backbone: PreTrainedModel) -> None:
        """Refuse target modules if no layer has any of the names; warn if some match no layer."""
        language = text_model(backbone)
        layers = dict(language.named_modules())
        missing = [
            target
            for target in self.target_modules
            if not any(f".{name}".endswith(f".{target}") for name in layers)
        ]
        if len(missing) < len(self.target_modules):
            if missing:
                logger.warning(
                    "model.adapter.target_modules: no layer of %s is called %s; the others are "
                    "adapted",
                    type(language).__name__, ", ".join(missing),
                )  # fmt: skip
            return
        linear = (nn.Linear, Conv1D)
        names = sorted({n.rpartition(".")[2] for n, x in layers.items() if isinstance(x, linear)})
        raise UserError(
            f"model.adapter.target_modules=[{','.join(self.target_modules)}]: no layer of "
            f"{type(language).__name__} has such a name; its linear layers are {', '.join(names)}. "
            f"Fix: model.adapter.target_modules=[{','.join(names)}], or some of them"
        )

    def _is_target(self, name: str) -> bool:
        return any(f".{name}".endswith(f".{target}") for target in self.target_modules)

    def _targets(self, backbone: PreTrainedModel) -> list[str] | str:
        """Return layer names, or a regular expression if only the language model is adapted."""
        prefix = text_model_name(backbone)
        if prefix is None:
            return self.target_modules
        names = "|".join(re.escape(name) for name in self.target_modules)
        return rf"{re.escape(prefix)}\..*\.({names})"


def merge_adapter(backbone: PreTrainedModel) -> PreTrainedModel:
    """Merge the adapter, if there is one, into the backbone's weights, and remove peft's wrapper.

    Merges in place, in the dtype of the weights: below float32, small changes are rounded away.

    Raises:
        UserError: a merged weight is not finite.
    """
    if not isinstance(backbone, PeftModel):
        return backbone
    try:
        return cast(PreTrainedModel, backbone.merge_and_unload(safe_merge=True))
    except ValueError as error:
        raise UserError(f"The adapter cannot be merged into its base: {error}") from error


def check_adapter_file(
    folder: Path, backbone: PreTrainedModel, *, state: Mapping[str, Tensor] | None = None
) -> None:
    """Check that a saved adapter equals the one in memory, bit by bit.

    Args:
        state: the adapter's weights, if the model's own are sharded.

    Raises:
        RuntimeError: a weight is missing, empty, NaN, different, or unexpected.
    """
    if not isinstance(backbone, PeftModel):
        return
    if state is None:
        state = {n: p for n, p in backbone.named_parameters() if p.requires_grad}
    written = load_file(folder / ADAPTER_FILE)
    for name, weight in state.items():
        found = written.pop(_name_in_file(name, backbone), None)
        is_equal = found is not None and found.numel() > 0 and torch.equal(found, weight.cpu())
        if not is_equal:
            raise RuntimeError(f"The adapter was not saved as it is: {name} differs.")
    own = backbone.state_dict()
    unknown = [n for n, w in written.items() if n not in own or not torch.equal(own[n].cpu(), w)]
    if unknown:
        raise RuntimeError(f"The adapter was saved with weights of no known origin: {unknown}.")


def _name_in_file(name: str, backbone: PeftModel) -> str:
    """Return peft's name of a trained parameter in a file, which lacks the adapter's name."""
    adapter = backbone.active_adapter
    if name.endswith(magnitude := f".lora_magnitude_vector.{adapter}.weight"):
        return name.removesuffix(magnitude) + ".lora_magnitude_vector"
    return name.replace(f".modules_to_save.{adapter}", "").replace(f".{adapter}", "")
