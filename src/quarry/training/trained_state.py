"""What a training run changes, apart from what it was loaded from: the weights that are trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from quarry.distributed import world
from quarry.errors import UserError


def trained_names(module: nn.Module) -> set[str]:
    """Names of the parameters that are trained."""
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def only_trained(state: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """The part of a state dict that is trained; the rest is where it was loaded from."""
    names = trained_names(module)
    return {name: tensor for name, tensor in state.items() if name in names}


def check_checkpoint(checkpoint: Mapping[str, Any], module: nn.Module) -> None:
    """Refuses a checkpoint that does not hold exactly what is trained here.

    (DeepSpeed's hold no `state_dict`: it checks its shards itself.)

    Raises:
        UserError: a trained weight is missing, or there is one that is not trained.
    """
    state = checkpoint.get("state_dict")
    if state is None:
        return
    wanted, found = trained_names(module), set(state)
    if wanted != found:
        missing, left = sorted(wanted - found)[:3], sorted(found - wanted)[:3]
        raise UserError(
            f"The checkpoint does not hold the weights that are trained here: missing "
            f"{missing or 'none'}, left over {left or 'none'}. Was model/adapter another one?"
        )


def whole_trained_state(module: nn.Module) -> dict[str, Tensor]:
    """The trained parameters, whole and in the optimiser's precision, on the CPU.

    Under ZeRO every process has to take part, and the first alone gets them; elsewhere each does.
    """
    parameters = {n: p for n, p in module.named_parameters() if p.requires_grad}
    state: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        value = _whole(parameter)
        if world.rank() == 0:
            state[name] = value.detach().to("cpu", copy=True)
    return state


def _whole(parameter: nn.Parameter) -> Tensor:
    if not (hasattr(parameter, "_hp_mapping") or hasattr(parameter, "ds_id")):
        return parameter
    from deepspeed.utils import safe_get_full_fp32_param

    value: Tensor | None = safe_get_full_fp32_param(parameter)
    return parameter if value is None else value
