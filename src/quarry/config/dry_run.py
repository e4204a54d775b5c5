"""What makes a run a dry run, which is named so and left out of reports."""

from __future__ import annotations

from omegaconf import DictConfig


def dry_run_of(config: DictConfig) -> str | None:
    """Return the override that makes a run a dry run; None: it is a run like any other."""
    if (name := config.get("debug")) is not None:
        return f"debug={name}"
    is_fast = config.trainer.get("fast_dev_run")
    return f"trainer.fast_dev_run={str(is_fast).lower()}" if is_fast else None
