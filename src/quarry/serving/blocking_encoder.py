"""Encode for the search through the server's one encoder thread."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from quarry.retrieval.embeddings import EmbeddingShare
from quarry.serving.batching import Batcher
from quarry.types import Document, Query, Role


class BlockingEncoder:
    """A `TextEncoder` whose calls wait for the batcher, to be used in other threads.

    Args:
        batcher: encodes.
        device: device of the model.
    """

    def __init__(self, batcher: Batcher, *, device: torch.device) -> None:
        self._batcher = batcher
        self.device = device

    def encode(self, items: Sequence[Query | Document], role: Role, *, label: str = "") -> Tensor:
        """Return embeddings [num_texts, dim], fp32, on the CPU.

        Raises:
            ApiError: see `Batcher.submit`.
        """
        return torch.from_numpy(self._batcher.submit(items, role).result().vectors)

    def encode_share(
        self, items: Sequence[Query | Document], role: Role, *, label: str = ""
    ) -> EmbeddingShare:
        """Refuse: a server encodes queries alone."""
        raise NotImplementedError("the server encodes no corpus")
