"""Let ZeRO 3 gather parameters for a module that uses them without calling their own modules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn


def gather_with(module: nn.Module, parameters: Iterable[nn.Parameter | None]) -> None:
    """Have DeepSpeed gather `parameters` around each forward and backward pass of `module`.

    Call this before DeepSpeed takes over the model. `set_z3_leaf_module` does not serve: a leaf
    reduces its gradients in a backward hook of the module. That hook fires before there are any
    gradients if no input of the module requires one, as in the first layer over frozen embeddings.
    """
    from deepspeed.runtime.zero.partition_parameters import register_external_parameter

    for parameter in parameters:
        if parameter is not None:
            register_external_parameter(module, parameter)


def is_gathering_hook(hook: Callable[..., Any]) -> bool:
    """Return whether a module's hook is DeepSpeed's, which gathers and releases its parameters."""
    return str(getattr(hook, "__module__", "")).startswith("deepspeed.")
