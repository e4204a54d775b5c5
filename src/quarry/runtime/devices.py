"""Whether there is a GPU: on this machine, or on the one that a plan is made for."""

from __future__ import annotations

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
