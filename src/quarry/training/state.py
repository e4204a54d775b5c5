"""Work in the midst of training that training must not notice: evaluating, saving a model."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def preserved_training_state(module: torch.nn.Module) -> Iterator[None]:
    """Puts back what the block may change: the mode of every part of `module`, the random numbers
    of Python, numpy and torch (CPU and CUDA), and autocast's cache of weights.

    Weights, gradients and optimizer are the block's to leave alone.
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
        # copies of weights that were made inside must not serve a training step
        torch.clear_autocast_cache()
