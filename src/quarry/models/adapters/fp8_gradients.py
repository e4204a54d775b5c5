"""Refuse to compile fp8 products whose gradients the installed torch would lose.

If several fp8 layers read the same input, such as q_proj and v_proj, torch 2.11 compiles a gradient
of that input with terms missing, and raises no error. On LoRA's fast path the base layer and B A
are one autograd function, and gradients are right (checked on an H200 with all seven projections).
Torch 2.13 is right for any choice of layers (checked on a CPU). Versions in between were not tried.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.torch_version import TorchVersion

from quarry.errors import UserError
from quarry.models.adapters.fast_lora import obstacle
from quarry.models.adapters.lora_factors import fast_layers
from quarry.models.fp8 import Fp8Linear

RIGHT_SINCE = "2.13"


def check_fp8_gradients(backbone: nn.Module) -> None:
    """Refuse fp8 layers that pass gradients and do not take LoRA's fast path.

    Call it before layers are compiled.

    Args:
        backbone: a backbone in fp8, with its adapter.

    Raises:
        UserError: there are such layers, and torch is older than `RIGHT_SINCE`.
    """
    if TorchVersion(torch.__version__) >= RIGHT_SINCE:
        return
    fast = [layer for layer in fast_layers(backbone) if obstacle(layer) is None]
    on_fast_path = {layer.get_base_layer() for layer in fast}
    alone = {
        name.removesuffix(".base_layer").rpartition(".")[2]
        for name, layer in backbone.named_modules()
        if isinstance(layer, Fp8Linear)
        and layer.backward_values is not None
        and layer not in on_fast_path
    }
    if alone:
        raise UserError(
            f"model.linear_precision=fp8 with compiled layers: torch {torch.__version__} computes "
            f"wrong gradients at {', '.join(sorted(alone))}, which are not on LoRA's fast path "
            f"(torch {RIGHT_SINCE} is right). Fix: name all linear layers in "
            "model.adapter.target_modules, set model.compile=false, or use "
            "model.linear_precision=null"
        )
