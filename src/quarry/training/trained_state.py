"""Select, read and gather the weights that a training run trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from quarry.distributed import world
from quarry.errors import UserError
from quarry.losses.base import Loss
from quarry.training.stored_checkpoint import DAMAGES, damaged_message, read_checkpoint


def trained_names(module: nn.Module) -> set[str]:
    """Return the names of the trained parameters, and of the buffers of the loss."""
    parameters = dict(module.named_parameters())
    names = {name for name, parameter in parameters.items() if parameter.requires_grad}
    for prefix, inner in module.named_modules():
        if isinstance(inner, Loss):
            names |= {f"{prefix}.{name}" for name in inner.state_dict()} - set(parameters)
    return names


def only_trained(state: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Return the trained part of a state dict; frozen weights are in the base model's files."""
    names = trained_names(module)
    return {name: tensor for name, tensor in state.items() if name in names}


def check_checkpoint(checkpoint: Mapping[str, Any], module: nn.Module) -> None:
    """Refuse a checkpoint that does not hold exactly the weights that are trained here.

    (DeepSpeed's checkpoints hold no `state_dict`: DeepSpeed checks its shards itself.)

    Raises:
        UserError: a trained weight is missing, or the checkpoint has a frozen one.
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


def read_trained(checkpoint: Path) -> dict[str, Tensor]:
    """Return the trained weights of a checkpoint: a file, or a folder of ZeRO's shards.

    DeepSpeed unpickles its shards, which can run anything: callers make sure that the run's own
    strategy writes shards (`config.world_size.foreign_checkpoint`).

    Raises:
        UserError: the checkpoint is damaged, or a file holds more than tensors and plain values.
    """
    if checkpoint.is_dir():
        return _read_shards(checkpoint)
    state: Any = read_checkpoint(checkpoint).get("state_dict")
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise UserError(damaged_message(checkpoint, "it has no state_dict of tensors"))
    return state


def _read_shards(folder: Path) -> dict[str, Tensor]:
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    try:
        with (
            redirect_stdout(StringIO()),
            redirect_stderr(StringIO()),
        ):  # it prints messages and progress bars
            shards: Mapping[str, Tensor] = get_fp32_state_dict_from_zero_checkpoint(
                str(folder), exclude_frozen_parameters=True
            )
    except DAMAGES as error:
        raise UserError(damaged_message(folder, str(error))) from error
    return {name: tensor.clone() for name, tensor in shards.items()}


def is_spread(module: nn.Module) -> bool:
    """Return whether ZeRO shards the weights, or their fp32 master copies, over ranks."""
    return any(hasattr(p, "ds_id") or hasattr(p, "_hp_mapping") for p in module.parameters())


def full_state(module: nn.Module, *, is_trained_only: bool) -> dict[str, Tensor]:
    """Return the full parameters, in the optimizer's precision, on the CPU of rank 0.

    A collective operation; other ranks get an empty dict.

    Args:
        is_trained_only: leave out frozen parameters.
    """
    state: dict[str, Tensor] = {}
    for name, parameter in module.named_parameters():
        if is_trained_only and not parameter.requires_grad:
            continue
        with _full_value(parameter) as value:
            if world.rank() == 0:
                state[name] = value.detach().to("cpu", copy=True)
    return state


@contextmanager
def _full_value(parameter: nn.Parameter) -> Iterator[Tensor]:
    is_in_shards, has_master = hasattr(parameter, "ds_id"), hasattr(parameter, "_hp_mapping")
    if parameter.requires_grad and (is_in_shards or has_master):
        from deepspeed.utils import safe_get_full_fp32_param

        value: Tensor | None = safe_get_full_fp32_param(parameter)
        assert value is not None, "every trained parameter is in the optimizer"
        yield value
    elif is_in_shards:
        from deepspeed.zero import GatheredParameters

        with GatheredParameters([parameter]):
            yield parameter
    else:
        yield parameter
