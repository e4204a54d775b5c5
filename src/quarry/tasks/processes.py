"""What a job of several processes does before they know one another: one run directory for all."""

from __future__ import annotations

import contextlib
from pathlib import Path

from omegaconf import DictConfig

from quarry.distributed.launch import agreed_with_first


def share_run_directory(config: DictConfig) -> None:
    """Where a launcher starts all processes, each names a directory after its own time: all take
    the first's."""
    own = config.paths.run_dir
    config.paths.run_dir = agreed_with_first(own)
    if config.paths.run_dir != own:
        with contextlib.suppress(OSError):
            Path(own).rmdir()
