r"""Try CUDA graphs of the model's forward and backward pass in `train.py`, as a callback.

    python bench/train_ours.py --model FOLDER --texts FOLDER --work FOLDER --num-queries 16 \
        --num-warm-up 40 model.compile=true data.num_workers=2 \
        +callbacks.graphs._target_=lightning_graphs.LightningGraphs \
        +callbacks.graphs.step=1280 +callbacks.graphs.longest=256

It needs a GPU. docs/performance.md measures 1.03 times in 0.5B training, so it remains a trial.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from quarry.models.bi_encoder import BiEncoder
from quarry.types import TokenBatch

logger = logging.getLogger(__name__)

NUM_TOKENS_OF_FILLER = 128
"""Maximum length of a padding text, which must not become the longest text of a batch."""


class LightningGraphs(pl.Callback):
    """Replay a graph for each batch shape; a shape is captured at its first batch.

    A batch is padded to the next multiple of `step` tokens with texts whose embeddings are ignored.

    Args:
        step: tokens between two shapes.
        longest: tokens of the longest text, the same for all shapes.
    """

    def __init__(self, *, step: int, longest: int) -> None:
        self.step = step
        self.longest = longest
        self._captured: dict[tuple[int, int], Callable[..., Tensor]] = {}
        self._pool: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        model = pl_module.model
        assert isinstance(model, BiEncoder)

        def forward(tokens: TokenBatch) -> Tensor:
            with torch.autocast("cuda", dtype=torch.bfloat16, cache_enabled=False):
                return self._embed(model, tokens)

        pl_module._forward = forward  # type: ignore[assignment]

    def _embed(self, model: BiEncoder, tokens: TokenBatch) -> Tensor:
        ids, positions, borders = self._filled(tokens)
        shape = (len(ids), len(borders))
        if shape not in self._captured:
            logger.info("capturing %d tokens of %d texts", len(ids), len(borders) - 1)
            self._captured[shape] = self._capture(model, (ids, positions, borders))
        return self._captured[shape](ids, positions, borders)[: len(tokens)]

    def _filled(self, tokens: TokenBatch) -> tuple[Tensor, Tensor, Tensor]:
        number = tokens.num_tokens
        missing = -number % self.step
        num_fillers = self.step // NUM_TOKENS_OF_FILLER
        ends = np.minimum(np.arange(1, num_fillers + 1) * NUM_TOKENS_OF_FILLER, missing)
        device = tokens.input_ids.device
        positions = torch.arange(missing, device=device) % NUM_TOKENS_OF_FILLER
        more = torch.from_numpy(ends + number).to(device, tokens.cu_seqlens.dtype)
        return (
            torch.cat(
                [tokens.input_ids, torch.zeros_like(positions, dtype=tokens.input_ids.dtype)]
            ),
            torch.cat([tokens.position_ids, positions.to(tokens.position_ids.dtype)]),
            torch.cat([tokens.cu_seqlens, more]),
        )

    def _capture(
        self, model: BiEncoder, example: tuple[Tensor, Tensor, Tensor]
    ) -> Callable[..., Tensor]:
        graphs: Any = torch.cuda.graphs
        plain = graphs.graph
        # the pin-memory thread calls CUDA, too
        graphs.graph = functools.partial(plain, capture_error_mode="thread_local")
        try:
            captured: Any = torch.cuda.make_graphed_callables(
                _Pass(model, longest=self.longest), example, pool=self._pool
            )
            graphed: Callable[..., Tensor] = captured
            return graphed
        finally:
            graphs.graph = plain


class _Pass(nn.Module):
    """The model with tensors as its only arguments."""

    def __init__(self, model: BiEncoder, *, longest: int) -> None:
        super().__init__()
        self.model = model
        self.longest = longest

    def forward(self, ids: Tensor, positions: Tensor, borders: Tensor) -> Tensor:
        embeddings: Tensor = self.model(
            TokenBatch(
                input_ids=ids,
                position_ids=positions,
                cu_seqlens=borders,
                max_seqlen=self.longest,
                pool_starts=borders[:-1],
            )
        )
        return embeddings
