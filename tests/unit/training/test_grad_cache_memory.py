"""GradCache when a chunk does not fit into memory: half the budget, once; nothing counts twice."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.models import tiny_bi_encoder
from quarry.data.packing import pack
from quarry.errors import UserError
from quarry.models.bi_encoder import BiEncoder
from quarry.training.grad_cache import GradCache
from quarry.types import TokenBatch

LENGTHS = [12, 3, 9, 5, 7, 12, 1, 11]


def contrastive_batch() -> TokenBatch:
    random = np.random.default_rng(0)
    return pack([random.integers(0, 128, length) for length in LENGTHS])


def loss_of(embeddings: Tensor) -> Tensor:
    return (embeddings @ embeddings.T).logsumexp(dim=1).sum()


def full_memory(*_: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


class Memory:
    """A model on a device that holds a number of tokens in one pass.

    Args:
        where: the pass that fails above it: `embed`, `forward` (the second) or `backward`.
    """

    def __init__(self, model: BiEncoder, *, max_tokens: int, where: str) -> None:
        self.model, self.max_tokens, self.where = model, max_tokens, where
        self.is_second = False
        self.spoils = False

    def __call__(self, tokens: TokenBatch) -> Tensor:
        is_too_much = tokens.num_tokens > self.max_tokens
        if is_too_much and self.where == ("forward" if self.is_second else "embed"):
            full_memory()
        # when that fails, the second layer has its gradient and the first one has not
        handle = self.model.backbone.layers[0].register_forward_hook(self._spoil)
        self.spoils = is_too_much and self.where == "backward"
        embeddings = self.model(tokens)
        handle.remove()
        return embeddings

    def _spoil(self, layer: object, args: object, output: Tensor) -> None:
        if self.spoils and output.requires_grad:
            output.register_hook(full_memory)


def run(memory: Memory, *, budget: int) -> GradCache:
    cache = GradCache(chunk_tokens=budget)
    loss_of(cache.embed(memory, contrastive_batch())).backward()
    memory.is_second = True
    cache.backward(memory, list(memory.model.parameters()))
    return cache


@pytest.mark.parametrize("where", ["embed", "forward", "backward"])
def test_the_budget_is_halved_said_once_and_gradients_are_exact(
    where: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_bi_encoder(dtype=torch.float64)
    with caplog.at_level(logging.WARNING):
        cache = run(Memory(model, max_tokens=16, where=where), budget=30)
    assert cache.chunk_tokens == 15
    assert [record.getMessage() for record in caplog.records] == [
        "data.grad_cache_chunk_tokens=30: out of memory in a chunk; continuing with 15"
    ]
    reference = tiny_bi_encoder(dtype=torch.float64)
    loss_of(reference(contrastive_batch())).backward()
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        assert ours.requires_grad
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("where", ["embed", "forward", "backward"])
def test_half_of_it_too_much_is_an_error_with_the_remedy(where: str) -> None:
    memory = Memory(tiny_bi_encoder(), max_tokens=5, where=where)
    with pytest.raises(UserError, match=r"data\.grad_cache_chunk_tokens=15 .*Fix: .*=7 or less"):
        run(memory, budget=30)


def test_a_failed_first_pass_draws_no_random_numbers() -> None:
    def state_after(max_tokens: int) -> Tensor:
        torch.manual_seed(0)
        memory = Memory(tiny_bi_encoder(), max_tokens=max_tokens, where="embed")

        def forward(tokens: TokenBatch) -> Tensor:
            torch.rand(tokens.num_tokens)
            return memory(tokens)

        torch.manual_seed(0)
        GradCache(chunk_tokens=30 if max_tokens < 30 else 15).embed(forward, contrastive_batch())
        return torch.get_rng_state()

    assert torch.equal(state_after(16), state_after(1000))


def test_several_processes_are_not_recovered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(UserError, match="data.grad_cache_chunk_tokens=30"):
        run(Memory(tiny_bi_encoder(), max_tokens=16, where="embed"), budget=30)


@pytest.mark.parametrize("budget", [0, -1])
def test_a_budget_without_tokens_is_refused(budget: int) -> None:
    with pytest.raises(UserError, match=rf"data\.grad_cache_chunk_tokens={budget} must be"):
        GradCache(chunk_tokens=budget)
