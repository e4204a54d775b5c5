"""Run an entry point: compose its primary configuration and call the task that it names."""

from __future__ import annotations

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from quarry.cli.config_path import with_absolute_config_path
from quarry.config.schema import register_schemas
from quarry.runtime.entry import shows_user_errors
from quarry.runtime.own_command import restarted
from quarry.runtime.shipped_files import conf_dir
from quarry.sweep.end import shows_study


def run_command(primary: str) -> None:
    """Run the command line of this process.

    Args:
        primary: train or eval, the configuration that it is for.
    """
    words = restarted()  # here: a process of a launcher is started otherwise, and gets the values

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=primary)
    def run_task(config: DictConfig) -> object:
        """Run the chosen task (conf/task) and return its result, for sweepers."""
        # not above: processes that prepare batches import this file, and would import all of it
        from quarry.sweep.dispatch import run

        return run(config, program=words)

    register_schemas()
    sys.argv[1:] = with_absolute_config_path(sys.argv[1:], script=Path(sys.argv[0]))
    with shows_user_errors(), shows_study(primary=primary):
        run_task()
