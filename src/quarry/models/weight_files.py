"""Read tensors by name from safetensors files, and from pickled files that hold only tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from quarry.errors import UserError

_DAMAGES = (OSError, EOFError, SafetensorError, RuntimeError, ValueError, KeyError)


def read_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor; of a safetensors file only the header is read.

    Raises:
        UserError: as `read_tensors`.
    """
    if file.suffix != ".safetensors":
        return {name: tuple(tensor.shape) for name, tensor in _unpickled(file).items()}
    try:
        with safe_open(file, framework="pt") as weights:
            names = list(weights.keys())
            return {name: tuple(weights.get_slice(name).get_shape()) for name in names}
    except _DAMAGES as error:
        raise _damaged(file, error) from error


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Return all tensors of a file, on the CPU.

    Raises:
        UserError: the file is damaged, or it is a pickled file that holds more than tensors:
            loading it could execute code.
    """
    if file.suffix != ".safetensors":
        return dict(_unpickled(file))
    try:
        with safe_open(file, framework="pt") as weights:
            return {name: weights.get_tensor(name) for name in list(weights.keys())}
    except _DAMAGES as error:
        raise _damaged(file, error) from error


def _unpickled(file: Path) -> Mapping[str, Tensor]:
    try:
        loaded = torch.load(file, weights_only=True, map_location="cpu")
    except UnpicklingError as error:
        raise UserError(
            f"{file}: holds more than weights, and unpickling it could execute code, so it is not "
            "read. Fix: load it where you trust it, and save it again as safetensors"
        ) from error
    except _DAMAGES as error:
        raise _damaged(file, error) from error
    if not isinstance(loaded, dict) or not all(isinstance(t, Tensor) for t in loaded.values()):
        raise UserError(f"{file}: must hold tensors by name, found {type(loaded).__name__}.")
    return loaded


def _damaged(file: Path, error: Exception) -> UserError:
    return UserError(f"{file}: cannot be read ({error}). Restore the file.")
