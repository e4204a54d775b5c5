"""Save and restore random numbers, module modes and autocast's cache around evaluations."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def preserved_training_state(module: torch.nn.Module) -> Iterator[None]:
    """Restore the training state after the block, which may evaluate or save a model.

    Restored are the mode of every part of `module`, the random numbers of Python, numpy and torch
    (CPU and CUDA), and autocast's cache of weights.

    The block must not change weights, gradients or the optimizer.
    """
    modes = [(part, part.training) for part in module.modules()]
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        for part, is_training in modes:
            part.training = is_training
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
        # a training step must not use copies of weights from inside the block
        torch.clear_autocast_cache()
