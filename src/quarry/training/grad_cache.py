"""Compute gradients of a contrastive batch of any size in the memory of one chunk (GradCache).

The loss needs all embeddings at once, but only the embeddings. Given its gradient with respect to
each of them, the model can process the texts in chunks (Gao et al. 2021, arXiv 2101.06983).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Parameter

from quarry.data.packing import plan_batches, split
from quarry.distributed.reduction import Backward, backward_alone
from quarry.errors import UserError
from quarry.types import TokenBatch

logger = logging.getLogger(__name__)

Forward = Callable[[TokenBatch], Tensor]
"""Tokens -> embeddings [num_texts, dim]; the same for the same tokens and random numbers."""


class GradCache:
    """Run the two passes over a contrastive batch, before and after the loss's backward pass.

    `embed` returns the embeddings as a leaf of the graph. `backward` reads the leaf's `.grad`, with
    gradient accumulation and loss scaling in it. It repeats each chunk's forward pass with the same
    random numbers and propagates the chunk's share, so the gradients are those of one pass. The
    graph of one chunk is cached from the first pass: with a single chunk, nothing runs twice.

    A chunk holds texts of similar length. If one does not fit into memory, the chunk size is
    halved, once, and only for world size 1 (other ranks would wait for a different number of
    chunks). Gradients stay exact without dropout; with dropout, the texts of the remaining chunks
    get other random numbers in their second pass.

    Args:
        chunk_tokens: tokens in one forward pass (`data.grad_cache_chunk_tokens`); a longer text
            has a chunk of its own.
        num_chunks: under ZeRO 3, where every forward pass is a collective operation: number of
            chunks of this rank -> the largest number of any rank. A rank with fewer chunks repeats
            a text, without effect.

    Raises:
        UserError: the chunk size is below 1; in a pass: half of it still exceeds the memory.
    """

    def __init__(
        self, *, chunk_tokens: int, num_chunks: Callable[[int], int] | None = None
    ) -> None:
        if chunk_tokens < 1:
            raise UserError(
                f"data.grad_cache_chunk_tokens={chunk_tokens} must be at least 1 (tokens in one "
                "forward pass), or null for no chunks."
            )
        self.chunk_tokens = chunk_tokens
        self.num_chunks = num_chunks
        self._is_halved = False
        self._todo: list[_Chunk] = []
        self._cached: Tensor | None = None
        self._leaf: Tensor | None = None

    def embed(self, forward: Forward, tokens: TokenBatch) -> Tensor:
        """Return the embeddings, [num_texts, dim] in batch order, as a leaf that requires grad."""
        while True:
            random_state = _RandomState.of(tokens)
            try:
                return self._first_pass(forward, tokens)
            except torch.OutOfMemoryError:
                pass  # handled outside: the exception keeps the activations alive
            self._cached = None
            self._halve()
            random_state.restore()

    def backward(
        self,
        forward: Forward,
        parameters: Sequence[Parameter],
        backward: Backward = backward_alone,
    ) -> None:
        """Add to the parameters' gradients, from the gradient of the last `embed`'s embeddings.

        Args:
            forward: as in `embed`.
            parameters: the trained parameters.
            backward: propagates a chunk's share.
        """
        assert self._leaf is not None
        assert self._leaf.grad is not None, "the loss's backward pass comes first"
        gradient, self._leaf = self._leaf.grad, None
        while self._todo:
            chunk = self._todo.pop()
            before = _versions(parameters)
            try:
                self._second_pass(chunk, gradient, forward, backward, is_last=not self._todo)
                continue
            except torch.OutOfMemoryError:
                pass
            if backward is not backward_alone:  # it may have reduced gradients already
                raise self._does_not_fit()
            self._halve()
            after = _versions(parameters)
            has_share = [
                p for p, old, new in zip(parameters, before, after, strict=True) if old != new
            ]
            self._todo = [part for later in self._todo for part in self._parts(later)]
            self._todo += self._parts(replace(chunk, done=tuple(has_share)))

    def _first_pass(self, forward: Forward, tokens: TokenBatch) -> Tensor:
        # longest texts last: the chunk whose graph is cached is a full one
        plan = self._plan(tokens)[::-1]
        self._todo, embeddings = [], []
        num_idle = 0 if self.num_chunks is None else self.num_chunks(len(plan)) - len(plan)
        for rows in plan[:1] * num_idle:  # the shortest texts
            self._todo.append(_Chunk.idle(rows[-1:], tokens))
            with torch.no_grad():
                forward(self._todo[-1].tokens)
        for number, (rows, part) in enumerate(zip(plan, split(tokens, plan), strict=True), start=1):
            self._todo.append(_Chunk(rows=rows, tokens=part, random_state=_RandomState.of(tokens)))
            with torch.set_grad_enabled(number == len(plan)):
                output = forward(part)
            # torch before 2.13 may reuse weights, cast without a graph, in the cached graph
            torch.clear_autocast_cache()
            embeddings.append(output.detach())
        self._cached = output
        order = torch.from_numpy(np.concatenate(plan)).to(output.device)
        in_chunks = torch.cat(embeddings)
        self._leaf = torch.empty_like(in_chunks).index_copy_(0, order, in_chunks).requires_grad_()
        return self._leaf

    def _second_pass(
        self,
        chunk: _Chunk,
        gradient: Tensor,
        forward: Forward,
        backward: Backward,
        *,
        is_last: bool,
    ) -> None:
        embeddings, self._cached = self._cached, None
        with _frozen(chunk.done):
            if embeddings is None:
                with chunk.random_state.replayed(), torch.enable_grad():
                    embeddings = forward(chunk.tokens)
            rows = torch.from_numpy(chunk.rows).to(gradient.device)
            share = torch.zeros_like(embeddings) if chunk.is_idle else gradient[rows]
            backward(embeddings, share, is_last)

    def _plan(self, tokens: TokenBatch) -> list[NDArray[np.int64]]:
        lengths = tokens.cu_seqlens.diff().cpu().numpy()
        return plan_batches(lengths, max_tokens_per_batch=self.chunk_tokens)

    def _parts(self, chunk: _Chunk) -> list[_Chunk]:
        """Divide a chunk by the current chunk size."""
        plan = self._plan(chunk.tokens)
        return [
            replace(chunk, rows=chunk.rows[rows], tokens=tokens)
            for rows, tokens in zip(plan, split(chunk.tokens, plan), strict=True)
        ]

    def _halve(self) -> None:
        budget = self.chunk_tokens
        is_alone = not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1
        if self._is_halved or budget == 1 or not is_alone:
            raise self._does_not_fit()
        self._is_halved = True
        self.chunk_tokens = budget // 2
        logger.warning(
            "data.grad_cache_chunk_tokens=%d: out of memory in a chunk; continuing with %d",
            budget,
            self.chunk_tokens,
        )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # blocks that fitted the old chunks

    def _does_not_fit(self) -> UserError:
        budget = self.chunk_tokens
        return UserError(
            f"Out of memory: a chunk of data.grad_cache_chunk_tokens={budget} tokens (or a single "
            "longer text) does not fit. Fix: data.grad_cache_chunk_tokens="
            f"{max(1, budget // 2)} or less, or shorten the texts: prompt.max_document_length."
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _RandomState:
    """State of torch's random number generators, on the CPU and on the device if it is CUDA."""

    cpu: Tensor
    cuda: Tensor | None
    device: torch.device

    @classmethod
    def of(cls, tokens: TokenBatch) -> _RandomState:
        device = tokens.input_ids.device
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(cpu=torch.get_rng_state(), cuda=cuda, device=device)

    def restore(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda, self.device)

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Restore the state inside the block, and the current state after it."""
        with torch.random.fork_rng(devices=[] if self.cuda is None else [self.device]):
            self.restore()
            yield


@dataclass(frozen=True, kw_only=True, slots=True)
class _Chunk:
    """The texts of one forward pass.

    Attributes:
        rows: their rows in the contrastive batch.
        tokens: the texts.
        random_state: the state before their first forward pass.
        done: parameters whose gradient includes the share of these texts already.
        is_idle: a repeated text without a share, so that all ranks run as many passes.
    """

    rows: NDArray[np.int64]
    tokens: TokenBatch
    random_state: _RandomState
    done: tuple[Parameter, ...] = ()
    is_idle: bool = False

    @classmethod
    def idle(cls, rows: NDArray[np.int64], tokens: TokenBatch) -> _Chunk:
        """Return a chunk that only takes part in the collective operations of other ranks."""
        (part,) = split(tokens, [rows])
        state = _RandomState.of(tokens)
        return cls(rows=rows, tokens=part, random_state=state, is_idle=True)


def _versions(parameters: Sequence[Parameter]) -> list[int]:
    """Return the version counters of the gradients, which change with each addition."""
    return [-1 if p.grad is None else p.grad._version for p in parameters]


@contextmanager
def _frozen(parameters: Sequence[Parameter]) -> Iterator[None]:
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
