"""Let ZeRO 3 gather parameters for a module that uses them without calling their own modules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn


def gather_with(module: nn.Module, parameters: Iterable[nn.Parameter | None]) -> None:
    """Have DeepSpeed gather `parameters` around each forward and backward pass of `module`.

    To be called before DeepSpeed takes the model over. Not done by `set_z3_leaf_module`: a leaf
    reduces its gradients in a backward hook of the module, which fires before there are any where
    no input of the module has a gradient, as in the first layer over frozen embeddings.
    """
    from deepspeed.runtime.zero.partition_parameters import register_external_parameter

    for parameter in parameters:
        if parameter is not None:
            register_external_parameter(module, parameter)


def is_gathering_hook(hook: Callable[..., Any]) -> bool:
    """Return whether a module's hook is DeepSpeed's, which gathers and releases its parameters."""
    return str(getattr(hook, "__module__", "")).startswith("deepspeed.")
