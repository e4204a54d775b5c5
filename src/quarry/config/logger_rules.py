"""Loggers whose package is an extra: refused with the command that installs it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from omegaconf import DictConfig

PACKAGES = {
    "pytorch_lightning.loggers.TensorBoardLogger": (("tensorboard", "tensorboardX"), "tensorboard"),
    "quarry.training.mlflow_run.MLFlowRun": (("mlflow",), "mlflow"),
}
"""Class of a logger -> the modules of which it needs one, and the package to install."""


def logger_violations(config: DictConfig) -> Iterator[str]:
    """Loggers that cannot start, for their package is not installed."""
    for name, node in config.logger.items():
        target = None if node is None else node.get("_target_")
        modules, package = PACKAGES.get(str(target), ((), ""))
        if modules and not any(find_spec(module) for module in modules):
            yield f"logger.{name}: {package} is not installed. Fix: pip install {package}"
