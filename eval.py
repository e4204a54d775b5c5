"""Evaluate retrievers: `python eval.py [GROUP=OPTION] [KEY=VALUE]`, see conf/eval.yaml."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from quarry.config.schema import register_schemas
from quarry.runtime.entry import shows_user_errors
from quarry.sweep.end import shows_study

register_schemas()


@hydra.main(version_base="1.3", config_path="conf", config_name="eval")
def main(config: DictConfig) -> object:
    """Run the chosen task (conf/task) and return its result, for sweepers."""
    # not at the top: data loader workers import this file, and would import all of quarry
    from quarry.sweep.dispatch import run

    return run(config, entry=Path(__file__).resolve())


if __name__ == "__main__":
    with shows_user_errors(), shows_study():
        main()
