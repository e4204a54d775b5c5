"""Read a checkpoint that is one file: tensors and plain values, never what is pickled besides."""

from __future__ import annotations

import shlex
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from quarry.errors import UserError

DAMAGES = (
    OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError,
    AssertionError, UnpicklingError,
)  # fmt: skip
"""What reading a damaged checkpoint raises in torch and DeepSpeed."""


def read_checkpoint(path: Path, *, maps: bool = False) -> dict[str, Any]:
    """Return the content of a checkpoint, on the CPU.

    Args:
        maps: tensors are mapped from disk, for who reads few of them.

    Raises:
        UserError: the file is damaged, or holds something else than tensors and plain values.
    """
    try:
        stored: Any = torch.load(path, weights_only=True, mmap=maps, map_location="cpu")
    except UnpicklingError as error:  # torch's own message advises to unpickle it all the same
        raise UserError(
            f"{path}: holds more than tensors and plain values, or is damaged; unpickling it could "
            f"run code, so it is not read. {_remedy(path)}"
        ) from error
    except DAMAGES as error:
        raise UserError(damaged_message(path, str(error))) from error
    if not isinstance(stored, dict):
        raise UserError(damaged_message(path, f"it holds a {type(stored).__name__}"))
    return stored


def damaged_message(path: Path, reason: str) -> str:
    """Return the message about a checkpoint that cannot be read."""
    return f"{path}: the checkpoint is damaged ({' '.join(reason.split())[:200]}). {_remedy(path)}"


def _remedy(path: Path) -> str:
    new = "start the run again in a new run directory"
    previous = path.with_name("previous.ckpt")
    if path == previous or not previous.exists():
        return f"Fix: restore it from a copy, or {new}"
    last, before = (shlex.quote(str(each)) for each in (path, previous))
    return (
        "Fix: restore it from a copy, or continue from the checkpoint before: "
        f"mv {last} {last}.damaged && mv {before} {last}"
    )
