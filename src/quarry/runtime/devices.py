"""Detect GPUs: on this machine, or as assumed for the machine that a plan is made for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_plans_for_gpu: ContextVar[bool] = ContextVar("plans_for_gpu", default=False)


def has_gpu() -> bool:
    """Return whether a run has a CUDA device; everything that depends on a GPU asks here."""
    import torch

    return _plans_for_gpu.get() or torch.cuda.is_available()


@contextmanager
def planned_for_gpu() -> Iterator[None]:
    """Make `has_gpu` return True inside: dtypes, precision and offloading are as with a GPU.

    For plans alone: nothing may be loaded inside.
    """
    token = _plans_for_gpu.set(True)
    try:
        yield
    finally:
        _plans_for_gpu.reset(token)


def visible_gpus() -> tuple[str, ...]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return tuple(name.strip() for name in named.split(",") if name.strip())
    return tuple(str(index) for index in range(torch.cuda.device_count()))
