"""Say how a run is resumed: the one command that messages name."""

from __future__ import annotations

import shlex
from pathlib import Path

from omegaconf import DictConfig

from quarry.config.stored_targets import packages_of
from quarry.runtime.override_text import quoted
from quarry.runtime.own_command import own_command


def resume_command(config: DictConfig, run: str | Path) -> str:
    """Return the command that resumes a run, with the packages of its own that it has to trust.

    Args:
        config: of the run.
        run: its directory; quoted where Hydra or the shell would read it otherwise.
    """
    packages = packages_of(config)
    trusted = f" trusted_packages=[{','.join(packages)}]" if packages else ""
    path = shlex.quote(f"run={quoted(str(run))}")
    return f"{own_command('train')} task=resume {path}{trusted}"
