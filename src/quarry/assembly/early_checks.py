"""Build the parts of a run once on trial, so that what they refuse is known before any work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from hydra.errors import InstantiationException
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig

from quarry.assembly.trainer import build_trainer
from quarry.assembly.training_loss import build_loss
from quarry.config.instantiate import build
from quarry.errors import ConfigurationError, UserError

REFUSALS = (
    *(ValueError, TypeError, LookupError, AttributeError, RuntimeError),
    MisconfigurationException,
)
"""What a class raises on arguments that it cannot take."""


def check_trainer(config: DictConfig) -> None:
    """Refuse a configuration that Lightning's Trainer cannot be built from.

    Raises:
        UserError: with the Trainer's own words.
    """
    with _named("trainer"):
        build_trainer(config.trainer, run_dir=config.paths.run_dir, callbacks=[], loggers=[])


def check_training_parts(config: DictConfig) -> None:
    """Refuse a loss, an optimizer or a schedule that cannot be built; see `check_trainer`.

    Optimizer and schedule are those of one small weight.
    """
    with _named("loss"):
        build_loss(config)
    with _named("optimizer"):
        optimizer = build(config.optimizer)([torch.nn.Parameter(torch.zeros(2, 2))])
    with _named("scheduler"):
        build(config.scheduler)(optimizer, num_training_steps=1)


@contextmanager
def _named(key: str) -> Iterator[None]:
    """Turn the refusal of a class into a message that names the key."""
    try:
        yield
    except UserError:
        raise
    except (InstantiationException, *REFUSALS) as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if not isinstance(cause, REFUSALS):
            raise
        text = str(cause).strip().rstrip(".") or type(cause).__name__
        # a device may fail one rank alone; arguments are wrong on all of them
        kind = UserError if isinstance(cause, RuntimeError) else ConfigurationError
        raise kind(
            f"{key}: it cannot be built: {text}. Fix: the keys of {key}, see --help"
        ) from error
