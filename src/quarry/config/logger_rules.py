"""Check that the packages of the loggers are installed; they are an extra."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from omegaconf import DictConfig, OmegaConf

from quarry.config.signature_rules import group_violations, signature_violations
from quarry.errors import UserError
from quarry.runtime.extras import LIBRARIES, needs

MODULES = {
    "pytorch_lightning.loggers.TensorBoardLogger": ("tensorboard", "tensorboardX"),
    "quarry.training.mlflow_run.MLFlowRun": ("mlflow",),
}
"""Class of a logger -> the modules of which it needs one; the first is the one to install."""


def check_loggers(config: DictConfig) -> None:
    """Check the loggers of a task that validates nothing else.

    Raises:
        UserError: a logger names no class, has wrong arguments, or its package is not installed.
    """
    group = OmegaConf.select(config, "logger")
    violations = [*group_violations(group, "logger")]
    violations = violations or [*signature_violations(group, "logger"), *logger_violations(config)]
    if violations:
        raise UserError("\n".join(violations))


def logger_violations(config: DictConfig) -> Iterator[str]:
    """Yield the loggers that cannot start because their package is not installed."""
    for name, node in config.logger.items():
        modules = () if node is None else MODULES.get(str(node.get("_target_")), ())
        if modules and not any(find_spec(module) for module in modules):
            library, extra = LIBRARIES[modules[0]]
            yield f"logger.{name} {needs(library, extra=extra)}"
