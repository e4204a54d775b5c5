"""Convert embeddings to the dtype of their storage, and refuse what it cannot hold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from quarry.errors import UserError


def converted(
    embeddings: Tensor, dtype: np.dtype, *, what: str, remedy: str
) -> NDArray[np.floating]:
    """Return embeddings as a contiguous array of `dtype`.

    Args:
        embeddings: [num_texts, dim], fp32, on the CPU.
        what: name of the embedded texts, for the message.
        remedy: override that stores the embeddings in float32.

    Raises:
        UserError: a number is too large for `dtype`.
    """
    wide: NDArray[np.float32] = embeddings.numpy()
    if dtype == wide.dtype:
        return np.ascontiguousarray(wide)
    with np.errstate(over="ignore"):
        vectors = np.ascontiguousarray(wide, dtype=dtype)
    if np.isinf(vectors).any() and not np.isinf(wide).any():
        raise UserError(
            f"An embedding of {what} holds {np.abs(wide).max():.4g}, more than {dtype.name} can. "
            f"Set {remedy}."
        )
    return vectors
