"""Check that the packages of the loggers are installed; they are an extra."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from omegaconf import DictConfig

from quarry.runtime.extras import LIBRARIES, needs

MODULES = {
    "pytorch_lightning.loggers.TensorBoardLogger": ("tensorboard", "tensorboardX"),
    "quarry.training.mlflow_run.MLFlowRun": ("mlflow",),
}
"""Class of a logger -> the modules of which it needs one; the first is the one to install."""


def logger_violations(config: DictConfig) -> Iterator[str]:
    """Yield the loggers that cannot start because their package is not installed."""
    for name, node in config.logger.items():
        modules = () if node is None else MODULES.get(str(node.get("_target_")), ())
        if modules and not any(find_spec(module) for module in modules):
            library, extra = LIBRARIES[modules[0]]
            yield f"logger.{name} {needs(library, extra=extra)}"
