"""Whether there is a GPU: on this machine, or on the one that a plan is made for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_plans_for_gpu: ContextVar[bool] = ContextVar("plans_for_gpu", default=False)


def has_gpu() -> bool:
    """Whether a run would have a CUDA device; what depends on it asks here."""
    import torch

    return _plans_for_gpu.get() or torch.cuda.is_available()


@contextmanager
def planned_for_gpu() -> Iterator[None]:
    """Inside, what depends on a GPU (dtypes, precision, offloading) is what it is with one.

    For a plan alone: nothing may be loaded in here.
    """
    token = _plans_for_gpu.set(True)
    try:
        yield
    finally:
        _plans_for_gpu.reset(token)


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return tuple(name.strip() for name in named.split(",") if name.strip())
    return tuple(str(index) for index in range(torch.cuda.device_count()))
