"""Refuse or warn about command-line overrides that have no effect."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from quarry.config.contract import explicit_keys
from quarry.config.sweep_overrides import OWN_KEYS
from quarry.distributed import world
from quarry.errors import ConfigurationError
from quarry.runtime.override_text import key_of

logger = logging.getLogger(__name__)

KEYS_OF_BATCHES = (
    "data.num_hard_negatives", "data.global_batch_size", "data.num_workers",
    "data.grad_cache_chunk_tokens",
)  # fmt: skip
"""Keys of data that tasks do not read which take examples one by one."""


def refuse_other_overrides(allowed: Sequence[str], *, why: str) -> None:
    """Refuse overrides of other keys and groups than `allowed`, with all below them.

    The keys that a sweep passes to its jobs are allowed, too.

    Args:
        why: the rest of the message after the keys, with the remedy.
    """
    refused = [
        key for key in explicit_keys() if key not in OWN_KEYS and not _is_below(key, allowed)
    ]
    if refused:
        raise ConfigurationError(f"{', '.join(refused)} {why}")


def _is_below(key: str, names: Sequence[str]) -> bool:
    """Return whether a key or group is one of `names`, or below one."""
    return any(key == name or key.startswith((f"{name}.", f"{name}/")) for name in names)


def warn_without_effect(keys: Sequence[str], *, reason: str) -> None:
    """Warn, in one line, about overrides of `keys`, and of all below them.

    Args:
        reason: the setting with which they have no effect, and why.
    """
    if given := [key for key in explicit_keys() if _is_below(key, keys)]:
        logger.warning("%s: no effect with %s. Leave it out.", ", ".join(given), reason)


def named_run_directory(config: DictConfig) -> Path | None:
    """Return the `hydra.run.dir` of the command line; None: it names none, or is a sweep's job.

    None on ranks other than 0, too: Lightning adds one to the commands that start them.
    """
    if not HydraConfig.initialized() or config.study.job is not None:
        return None
    if not world.is_launched_first():
        return None
    hydra = HydraConfig.get()
    if not any(key_of(one) == "hydra.run.dir" for one in hydra.overrides.hydra):
        return None
    return Path(hydra.runtime.output_dir).absolute()


def warn_of_run_directory(config: DictConfig, *, task: str) -> None:
    """Warn of a `hydra.run.dir` that a task which writes no files has no use for; remove it if
    Hydra has just made it."""
    if (folder := named_run_directory(config)) is not None:
        logger.warning("hydra.run.dir=%s: no effect with task=%s (no files)", folder, task)
        with contextlib.suppress(OSError):  # it holds something
            if not folder.samefile(Path.cwd()):
                folder.rmdir()
