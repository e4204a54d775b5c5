"""Write and read a teacher's vectors of the training texts, by the hashes of the texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from quarry.errors import MissingPathError, UserError
from quarry.runtime.text_hash import text_hash


def write_teacher_vectors(
    path: Path | str, *, texts: Sequence[str], vectors: NDArray[np.float32]
) -> None:
    """Write a file for `loss=embedding_distillation`.

    Args:
        path: of the file, `*.safetensors`.
        texts: queries and passages, without prompts; a title stands before its passage's text,
            joined by a space.
        vectors: [num_texts, dim], the teacher's embedding of each.
    """
    assert len(texts) == len(vectors), "a vector for each text"
    hashes = np.array([text_hash(text) for text in texts], dtype=np.int64)
    _, first = np.unique(hashes, return_index=True)  # sorted, each text once
    write_hashed_vectors(path, hashes=hashes[first], vectors=vectors[first])


def write_hashed_vectors(
    path: Path | str, *, hashes: NDArray[np.int64], vectors: NDArray[np.float32]
) -> None:
    """Write a file for `loss=embedding_distillation`, of texts whose hashes are known.

    Args:
        path: of the file, `*.safetensors`.
        hashes: [num_texts] of `text_hash`, rising.
        vectors: [num_texts, dim], the teacher's embedding of each.
    """
    assert (hashes[1:] > hashes[:-1]).all(), "each text once, in the order of the hashes"
    save_file({"hashes": hashes, "embeddings": np.ascontiguousarray(vectors)}, str(path))


class TeacherVectors:
    """A teacher's vectors, in host memory.

    Args:
        path: a file of `write_teacher_vectors`.

    Raises:
        MissingPathError, UserError: there is no such file, or it holds something else.
    """

    def __init__(self, path: Path | str) -> None:
        if not Path(path).is_file():
            raise MissingPathError(
                f"loss.vectors={path}: no such file. Fix: loss.vectors=FILE, written by "
                "quarry.losses.teacher_vectors.write_teacher_vectors"
            )
        try:
            stored = load_file(str(path))
        except SafetensorError as error:
            raise UserError(f"loss.vectors={path}: is no safetensors file: {error}") from error
        hashes, embeddings = stored.get("hashes"), stored.get("embeddings")
        if (
            hashes is None
            or embeddings is None
            or hashes.dtype != np.int64
            or embeddings.ndim != 2
            or hashes.shape != embeddings.shape[:1]
            or not len(hashes)
            or (hashes[1:] <= hashes[:-1]).any()
        ):
            raise UserError(
                f"loss.vectors={path}: needs hashes [n] int64, rising, and embeddings [n, dim]. "
                "Fix: write it by quarry.losses.teacher_vectors.write_teacher_vectors"
            )
        if not np.isfinite(embeddings).all():
            row = int(np.flatnonzero(~np.isfinite(embeddings).all(axis=1))[0])
            raise UserError(f"loss.vectors={path}: row {row} of embeddings has a NaN or infinity")
        self._hashes = hashes
        self._embeddings = torch.from_numpy(embeddings)

    @property
    def dim(self) -> int:
        """Return the width of the vectors."""
        return int(self._embeddings.shape[1])

    def has(self, hashes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which hashes have a vector."""
        places = np.searchsorted(self._hashes, hashes).clip(max=len(self._hashes) - 1)
        found: NDArray[np.bool_] = self._hashes[places] == hashes
        return found

    def of(self, hashes: Tensor, *, like: Tensor) -> Tensor:
        """Return the vectors of texts: [num_texts, dim], with the dtype and device of `like`."""
        wanted = hashes.cpu().numpy()
        assert self.has(wanted).all(), "all texts were looked up before training"
        rows = torch.from_numpy(np.searchsorted(self._hashes, wanted))
        return self._embeddings[rows].to(like.device, like.dtype)
