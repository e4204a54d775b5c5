"""Evaluates retrievers: `python eval.py [GROUP=OPTION] [KEY=VALUE]`, see conf/eval.yaml."""

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig

from quarry.config.schema import register_schemas
from quarry.runtime.entry import shows_user_errors
from quarry.runtime.run_directory import removed_if_empty

register_schemas()


@hydra.main(version_base="1.3", config_path="conf", config_name="eval")
def main(config: DictConfig) -> object:
    """Runs the chosen task (conf/task) and returns its result, for sweepers."""
    with removed_if_empty(config.paths.run_dir):
        return instantiate(config.task)(config)


if __name__ == "__main__":
    with shows_user_errors():
        main()
