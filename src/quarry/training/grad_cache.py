"""GradCache: gradients of a contrast set of any size in the memory of one chunk of its texts.

The loss needs all embeddings at once, but only the embeddings: given its gradient at each of them,
texts can be sent through the model a few at a time (Gao et al. 2021, arXiv 2101.06983).
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
    """The two passes over a contrast set, around the loss and its backward pass.

    `embed` gives the embeddings as a leaf of the graph; what fills its `.grad` (accumulation,
    loss scaling included) is taken up by `backward`, which repeats each chunk's forward pass with
    the random numbers of the first and propagates its share. The gradients are those of one big
    batch. The graph of one chunk is kept from the first pass: where all texts fit into one, nothing
    is computed twice.

    Chunks are filled with texts of similar length. When one does not fit into memory, the budget is
    halved, once, and only in a run of one process (others would wait for a different number of
    chunks); gradients stay exact, but where dropout is on, the texts of the chunks that are left
    get other random numbers in their second pass.

    Args:
        chunk_tokens: tokens in one forward pass (`data.grad_cache_chunk_tokens`); a longer text
            goes alone.
        num_chunks: where every forward pass takes all processes (ZeRO 3): how many chunks a process
            has -> how many the busiest has. One with fewer sends a text through again and again,
            without effect.

    Raises:
        UserError: the budget is below 1; in a pass: half of it is still too much for the memory.
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
        """Embeddings [num_texts, dim] in the order of the batch; a leaf that wants a gradient."""
        while True:
            random_state = _RandomState.of(tokens)
            try:
                return self._first_pass(forward, tokens)
            except torch.OutOfMemoryError:
                pass  # gone on with outside: the exception holds on to the activations
            self._cached = None
            self._halve()
            random_state.restore()

    def backward(
        self,
        forward: Forward,
        parameters: Sequence[Parameter],
        backward: Backward = backward_alone,
    ) -> None:
        """Adds to the parameters' gradients, from the gradient of the last `embed`'s embeddings.

        Args:
            forward: as in `embed`.
            parameters: those that are trained.
            backward: propagates a chunk's share.
        """
        assert self._leaf is not None
        assert self._leaf.grad is not None, "the loss comes first"
        gradient, self._leaf = self._leaf.grad, None
        while self._todo:
            chunk = self._todo.pop()
            before = _versions(parameters)
            try:
                self._second_pass(chunk, gradient, forward, backward, is_last=not self._todo)
                continue
            except torch.OutOfMemoryError:
                pass
            if backward is not backward_alone:  # it alone knows what became of the gradients
                raise self._does_not_fit()
            self._halve()
            after = _versions(parameters)
            has_share = [
                p for p, old, new in zip(parameters, before, after, strict=True) if old != new
            ]
            self._todo = [part for later in self._todo for part in self._parts(later)]
            self._todo += self._parts(replace(chunk, done=tuple(has_share)))

    def _first_pass(self, forward: Forward, tokens: TokenBatch) -> Tensor:
        # longest texts last: the chunk whose graph is kept is a full one
        plan = self._plan(tokens)[::-1]
        self._todo, embeddings = [], []
        num_idle = 0 if self.num_chunks is None else self.num_chunks(len(plan)) - len(plan)
        for rows in plan[:1] * num_idle:  # of the shortest texts
            self._todo.append(_Chunk.idle(rows[-1:], tokens))
            with torch.no_grad():
                forward(self._todo[-1].tokens)
        for number, (rows, part) in enumerate(zip(plan, split(tokens, plan), strict=True), start=1):
            self._todo.append(_Chunk(rows=rows, tokens=part, random_state=_RandomState.of(tokens)))
            with torch.set_grad_enabled(number == len(plan)):
                output = forward(part)
            # torch before 2.13 may reuse weights that autocast cast without a graph in the kept one
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
        """A chunk cut anew, to the budget as it is now."""
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
            "Out of memory in a chunk of data.grad_cache_chunk_tokens=%d tokens: going on with %d",
            budget,
            self.chunk_tokens,
        )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # pieces that fit the old chunks

    def _does_not_fit(self) -> UserError:
        budget = self.chunk_tokens
        return UserError(
            f"Out of memory: a chunk of data.grad_cache_chunk_tokens={budget} tokens (or a single "
            "longer text) does not fit. Set data.grad_cache_chunk_tokens="
            f"{max(1, budget // 2)} or less, or shorten the texts: prompt.max_document_length."
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _RandomState:
    """Torch's random numbers from one point on, on the CPU and, if it is CUDA, the device."""

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
        """Back at that point inside, and as if nothing had been drawn after."""
        with torch.random.fork_rng(devices=[] if self.cuda is None else [self.device]):
            self.restore()
            yield


@dataclass(frozen=True, kw_only=True, slots=True)
class _Chunk:
    """The texts of one forward pass.

    Attributes:
        rows: their places in the contrast set.
        tokens: the texts.
        random_state: at the start of their first forward pass.
        done: parameters whose gradient has the share of these texts already.
        is_idle: the texts are in another chunk, too, and have no share here.
    """

    rows: NDArray[np.int64]
    tokens: TokenBatch
    random_state: _RandomState
    done: tuple[Parameter, ...] = ()
    is_idle: bool = False

    @classmethod
    def idle(cls, rows: NDArray[np.int64], tokens: TokenBatch) -> _Chunk:
        """One that keeps other processes company."""
        (part,) = split(tokens, [rows])
        state = _RandomState.of(tokens)
        return cls(rows=rows, tokens=part, random_state=state, is_idle=True)


def _versions(parameters: Sequence[Parameter]) -> list[int]:
    """Numbers that change when something is added to a parameter's gradient."""
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
