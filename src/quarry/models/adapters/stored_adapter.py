"""Load an adapter that peft has saved onto its base, and refuse one that does not match exactly.

The header of the adapter's file tells whether the two match before the base's weights are read.
"""

from __future__ import annotations

import copy
import logging
import math
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from peft import PeftConfig, PeftModel, PeftModelForFeatureExtraction, get_peft_model_state_dict
from peft.utils.save_and_load import set_peft_model_state_dict
from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedModel

from quarry.errors import MissingPathError, UserError
from quarry.models.adapters.adapter_config import (
    CONFIG_FILE,
    AdapterConfig,
    read_adapter_config,
)
from quarry.models.adapters.adapter_fitting import fitted_config
from quarry.models.adapters.adapter_names import REMEDY, AdapterNames, adapter_names
from quarry.models.adapters.base import TrainedPart
from quarry.models.backbones.model_files import model_file
from quarry.models.weight_files import read_shapes, read_tensors

logger = logging.getLogger(__name__)

ADAPTER_FILE = "adapter_model.safetensors"
PICKLED_FILE = "adapter_model.bin"

Shape = tuple[int, ...]

_LOADING_ERRORS = (AttributeError, KeyError, RuntimeError, SafetensorError, TypeError, ValueError)


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredAdapter:
    """A stored adapter: its configuration, and the names and shapes of its weights.

    Attributes:
        config: its adapter_config.json.
        file: the file with its weights.
        shapes: name in the file -> shape.
    """

    config: AdapterConfig
    file: Path
    shapes: Mapping[str, Shape]

    def names(self, backbone: PreTrainedModel) -> AdapterNames:
        """Map its weights to the layers of a backbone."""
        return adapter_names(self.shapes, backbone, kind=self.config.kind, file=self.file)


def read_adapter(source: str, *, revision: str | None = None) -> StoredAdapter:
    """Return an adapter's configuration and the header of its weights.

    Args:
        source: a folder or a hub id.
        revision: branch, tag or commit of the adapter's hub id.

    Raises:
        MissingPathError: there is no configuration, or there are no weights.
        UserError: a file is damaged, the kind of adapter is not supported, or a pickled file holds
            more than weights.
    """
    config = read_adapter_config(source, revision=revision)
    if config is None:
        raise MissingPathError(f"{source} holds no {CONFIG_FILE}. Fix: model.path=DIR of one.")
    file = model_file(source, ADAPTER_FILE, revision=revision)
    file = file or model_file(source, PICKLED_FILE, revision=revision)
    if file is None:
        raise MissingPathError(
            f"{source} holds neither {ADAPTER_FILE} nor {PICKLED_FILE}. Restore the file."
        )
    return StoredAdapter(config=config, file=file, shapes=read_shapes(file))


def check_adapter_fits(adapter: StoredAdapter, outline: PreTrainedModel) -> None:
    """Refuse an adapter of another base, by names and shapes of its weights.

    Args:
        outline: the backbone on the meta device; the adapter's layers are added to it.

    Raises:
        UserError: weights are missing, unexpected, or of another shape.
    """
    names = adapter.names(outline)
    config = fitted_config(adapter.config, names, outline)
    if hasattr(config, "init_lora_weights"):
        config.init_lora_weights = True  # other initializations compute with the base's weights
    adapted = _wrapped(outline, config, adapter=adapter, on_meta=True)
    _check_weights(adapter, names, adapted)


def load_adapter(backbone: PreTrainedModel, adapter: StoredAdapter) -> PreTrainedModel:
    """Load a stored adapter onto its base, which is changed in place; the adapter is trainable.

    Hidden states equal those of peft's own model with the adapter, whatever its head.

    Raises:
        UserError: the adapter belongs to another base, or its file is damaged.
    """
    names = adapter.names(backbone)
    config = fitted_config(adapter.config, names, backbone)
    adapted = _wrapped(backbone, config, adapter=adapter)
    _check_weights(adapter, names, adapted)
    try:
        stored = read_tensors(adapter.file)
        state = {ours: stored[name] for name, ours in names.weights.items()}
        result = set_peft_model_state_dict(adapted, state)
        if result.unexpected_keys:
            raise RuntimeError(f"left over {result.unexpected_keys[:3]}")
    except _LOADING_ERRORS as error:
        raise _does_not_fit(adapter, backbone, error) from error
    if names.dropped:
        logger.info(
            "%s: %d of %d weights belong to heads, which embeddings do not use; they are left "
            "out: %s",
            adapter.file,
            len(names.dropped),
            len(adapter.shapes),
            ", ".join(names.dropped[:3]) + (", ..." if len(names.dropped) > 3 else ""),
        )
    return cast(PreTrainedModel, adapted)


def stored_part(adapter: StoredAdapter, backbone: PreTrainedModel) -> TrainedPart:
    """Return the sizes of a stored adapter's trainable weights, without those of heads.

    Args:
        backbone: the base, not changed; may be on the meta device.
    """
    shapes = {name: adapter.shapes[name] for name in adapter.names(backbone).weights}
    down = [shape for name, shape in shapes.items() if ".lora_A." in name and len(shape) == 2]
    return TrainedPart(
        num_parameters=sum(math.prod(shape) for shape in shapes.values()),
        is_beside=True,
        num_inputs=sum(num_inputs for _, num_inputs in down),
        num_low_rank=sum(rank for rank, _ in down),
        dropout=float(adapter.config.settings.get("lora_dropout") or 0.0),
    )


def _wrapped(
    backbone: PreTrainedModel, config: PeftConfig, *, adapter: StoredAdapter, on_meta: bool = False
) -> PeftModel:
    """Return peft's model with the adapter's layers, before their weights are loaded."""
    wrapper = PeftModel if config.task_type is None else PeftModelForFeatureExtraction
    try:
        with warnings.catch_warnings(), torch.device("meta") if on_meta else nullcontext():
            warnings.simplefilter("ignore")  # names without a match: `_check_weights` finds them
            return wrapper(backbone, copy.deepcopy(config), low_cpu_mem_usage=on_meta)
    except (*_LOADING_ERRORS, ImportError) as error:
        raise _does_not_fit(adapter, backbone, error) from error


def _check_weights(adapter: StoredAdapter, names: AdapterNames, adapted: PeftModel) -> None:
    """Refuse a file whose weights are not exactly those of the adapter's configuration."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state: dict[str, Tensor] = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    original = {ours: name for name, ours in names.weights.items()}
    missing = sorted(name for name in state if name not in original)
    leftover = sorted(
        original[name] for name in original if name not in state and not _is_base(name, adapted)
    )
    shapes = [
        f"{original[name]} is {list(found)} (expected: {list(expected.shape)})"
        for name, expected in state.items()
        if name in original
        and (found := adapter.shapes[original[name]]) != tuple(expected.shape)
        and expected.numel() > 0  # a sharded weight has no shape on any rank
    ]
    if missing or leftover or shapes:
        model = type(adapted.get_base_model()).__name__
        parts = []
        for what, entries in (("missing", missing), ("left over", leftover), ("shape", shapes)):
            more = f" and {len(entries) - 3} more" if len(entries) > 3 else ""
            parts += [f"{what}: {', '.join(entries[:3])}{more}"] if entries else []
        raise UserError(
            f"{adapter.file} does not fit {model} of its base model (expected: every weight that "
            f"{CONFIG_FILE} stands for, and no other): {'; '.join(parts)}. {REMEDY}"
        )


def _is_base(name: str, adapted: PeftModel) -> bool:
    """Return whether a weight is the base's own embedding matrix, which peft saves, too."""
    embeddings = adapted.get_base_model().get_input_embeddings()
    layer = next(name for name, module in adapted.named_modules() if module is embeddings)
    return name == f"{layer}.base_layer.weight"


def _does_not_fit(adapter: StoredAdapter, backbone: torch.nn.Module, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:300]
    return UserError(
        f"{adapter.file} does not fit {type(backbone).__name__} of its base model: {reason}. "
        f"{REMEDY}"
    )
