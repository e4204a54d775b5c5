"""Refuse to compile fp8 products whose gradients the installed torch would lose.

Torch 2.11 compiles autograd functions of one input, such as q_proj and v_proj in fp8, to a gradient
that lacks a share, without a word. Under LoRA's fast path base and update are one function and
their gradients are right (checked on an H200 with all seven projections). Torch 2.13 has no such
fault, with any choice of layers (checked on a CPU); versions between them were not at hand.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.torch_version import TorchVersion

from quarry.errors import UserError
from quarry.models.adapters.lora_factors import fast_layers
from quarry.models.fp8 import Fp8Linear

RIGHT_SINCE = "2.13"


def check_fp8_gradients(backbone: nn.Module) -> None:
    """Refuse layers in fp8 that are trained through, compiled, and without LoRA's fast path.

    Args:
        backbone: in fp8, with its adapter.

    Raises:
        UserError: this torch would lose a share of their gradients.
    """
    if TorchVersion(torch.__version__) >= RIGHT_SINCE:
        return
    on_fast_path = {layer.get_base_layer() for layer in fast_layers(backbone)}
    alone = {
        name.rpartition(".")[2]
        for name, layer in backbone.named_modules()
        if isinstance(layer, Fp8Linear)
        and layer.backward_values is not None
        and layer not in on_fast_path
    }
    if alone:
        raise UserError(
            f"model.linear=fp8 with compiled layers: torch {torch.__version__} loses a share of "
            f"the gradients at {', '.join(sorted(alone))}, which the adapter does not train (fixed "
            f"in {RIGHT_SINCE}). Fix: name all linear layers in model.adapter.target_modules, set "
            "model.compile=false, or use model.linear=plain"
        )
