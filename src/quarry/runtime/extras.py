"""Say which pip command brings a library that only some commands need."""

from __future__ import annotations

import importlib
import logging
import re

from quarry.errors import UserError

logger = logging.getLogger(__name__)

LIBRARIES = {
    "sentence_transformers": ("sentence-transformers", "export"),
    "matplotlib": ("matplotlib", "plots"),
    "tensorboard": ("tensorboard", "loggers"),
    "mlflow": ("mlflow", "loggers"),
    "wandb_workspaces": ("wandb-workspaces", "dashboard"),
    "ray": ("ray", "ray"),
    "faiss": ("faiss-cpu", "faiss"),
    "fastapi": ("fastapi", "serve"),
    "uvicorn": ("uvicorn", "serve"),
    "prometheus_client": ("prometheus-client", "serve"),
    "onnx": ("onnx", "onnx"),
    "onnxruntime": ("onnxruntime", "onnx"),
    "onnxscript": ("onnxscript", "onnx"),
}
"""Module -> the library's name for pip, and the extra of pyproject.toml that has it."""

PLUGINS = {
    "hydra/launcher/joblib": "hydra-joblib-launcher",
    "hydra/launcher/submitit_local": "hydra-submitit-launcher",
    "hydra/launcher/submitit_slurm": "hydra-submitit-launcher",
    "hydra/sweeper/optuna": "hydra-optuna-sweeper",
}
"""Option that a plugin of Hydra brings -> the plugin; all are in the extra `sweeps`."""


def require(module: str, *, what: str) -> None:
    """Import a library of `LIBRARIES`.

    Args:
        what: needs it, for people: task=export.

    Raises:
        UserError: it is not installed; the message has the pip command.
    """
    if not is_installed(module):
        library, extra = LIBRARIES[module]
        raise UserError(f"{what} {needs(library, extra=extra)}")


def can_draw() -> bool:
    """Return whether matplotlib is there; if it is not, log that plots are left out."""
    if is_installed("matplotlib"):
        return True
    library, extra = LIBRARIES["matplotlib"]
    logger.warning("No plots: drawing %s", needs(library, extra=extra))
    return False


def is_installed(module: str) -> bool:
    """Import a library, and return whether it is there; one that is broken raises its own error."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        return False
    return True


def with_missing_plugin(message: str) -> str:
    """Return the message that replaces Hydra's about an option of a plugin that is not installed.

    Any other message is returned as it is.
    """
    found = re.search(r"could not (?:find|load) '([\w/]+)'", message, re.IGNORECASE)
    if found is None or found[1] not in PLUGINS:
        return message
    group, _, option = found[1].rpartition("/")
    return f"{group}={option} {needs(PLUGINS[found[1]], extra='sweeps')}"


def needs(library: str, *, extra: str) -> str:
    """Return the end of a sentence: what is missing, and the pip command."""
    return f"needs {library}. Fix: pip install 'quarry-retrieval[{extra}]'"
