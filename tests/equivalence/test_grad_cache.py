"""GradCache == one big batch: gradients of every trained parameter, for any token budget."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from helpers.losses import output_of
from helpers.models import random_projections, tiny_bi_encoder, tiny_qwen
from quarry.data.packing import pack, plan_batches, split
from quarry.losses.info_nce import InfoNCE
from quarry.models.adapters.fast_lora import use_fast_lora
from quarry.models.adapters.lora import LoRA
from quarry.models.bi_encoder import BiEncoder
from quarry.models.pooling.last_token import LastToken
from quarry.models.pooling.mean import Mean
from quarry.training.grad_cache import GradCache
from quarry.types import TokenBatch

NUM_QUERIES = 6
LOSS = InfoNCE(temperature=0.02)  # forgotten somewhere, gradients would be 50 times too small
LENGTHS = np.random.default_rng(0).integers(1, 24, NUM_QUERIES * 4)
NUM_TOKENS = int(LENGTHS.sum())
BUDGETS = [1, 25, 60, NUM_TOKENS - 1, NUM_TOKENS]


def contrastive_batch() -> TokenBatch:
    random = np.random.default_rng(1)
    return pack([random.integers(0, 128, length) for length in LENGTHS])


def full(dtype: torch.dtype, dropout: float) -> BiEncoder:
    backbone = tiny_qwen(dtype=dtype, attention_dropout=dropout)
    projections = random_projections().to(dtype)
    return BiEncoder(backbone=backbone, pooling=Mean(), projections=projections).train()


def lora(dtype: torch.dtype, dropout: float) -> BiEncoder:
    adapter = LoRA(r=4, alpha=8, dropout=dropout, target_modules=["q_proj", "v_proj", "up_proj"])
    model = BiEncoder(
        backbone=adapter(tiny_qwen(dtype=dtype)),
        pooling=LastToken(),
        projections=random_projections(),
    ).to(dtype)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at first, and so would be the gradient of lora_A
            nn.init.normal_(parameter, std=0.1)
    return model.train()


def fast_lora(dtype: torch.dtype, dropout: float) -> BiEncoder:
    model = lora(dtype, dropout)
    assert use_fast_lora(model.backbone).reasons == {}
    return model


Build = Callable[[torch.dtype, float], BiEncoder]
MODELS = pytest.mark.parametrize("build", [full, lora, fast_lora])


def trained(model: BiEncoder) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def loss_of(embeddings: Tensor) -> Tensor:
    positive_index = torch.arange(NUM_QUERIES) * 3
    return output_of(LOSS, embeddings[:NUM_QUERIES], embeddings[NUM_QUERIES:], positive_index).loss


def gradients(model: BiEncoder) -> list[Tensor]:
    found = [parameter.grad for parameter in trained(model)]
    assert all(gradient is not None and gradient.any() for gradient in found)
    return found  # type: ignore[return-value]


def cached(model: BiEncoder, budget: int) -> tuple[Tensor, list[Tensor]]:
    """Loss and gradients by GradCache."""
    cache = GradCache(chunk_tokens=budget)
    loss = loss_of(cache.embed(model, contrastive_batch()))
    loss.backward()
    cache.backward(model, trained(model))
    return loss.detach(), gradients(model)


def in_one(model: BiEncoder) -> tuple[Tensor, list[Tensor]]:
    """From one forward pass over all texts."""
    loss = loss_of(model(contrastive_batch()))
    loss.backward()
    return loss.detach(), gradients(model)


def in_kept_chunks(model: BiEncoder, budget: int) -> tuple[Tensor, list[Tensor]]:
    """From the same chunks in the same order, with the graphs of all kept: no pass is repeated."""
    plan = plan_batches(LENGTHS, max_tokens_per_batch=budget)[::-1]
    outputs = torch.cat([model(chunk) for chunk in split(contrastive_batch(), plan)])
    loss = loss_of(outputs[torch.from_numpy(np.argsort(np.concatenate(plan)))])
    loss.backward()
    return loss.detach(), gradients(model)


@MODELS
@pytest.mark.parametrize("budget", BUDGETS)
def test_gradients_equal_one_batch_in_fp64(build: Build, budget: int) -> None:
    loss, found = cached(build(torch.float64, 0.0), budget)
    expected_loss, expected = in_one(build(torch.float64, 0.0))
    torch.testing.assert_close(loss, expected_loss, rtol=1e-9, atol=0)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@MODELS
@pytest.mark.parametrize("budget", BUDGETS)
def test_gradients_equal_one_batch_in_fp32(build: Build, budget: int) -> None:
    _, found = cached(build(torch.float32, 0.0), budget)
    _, expected = in_one(build(torch.float32, 0.0))
    ours, theirs = (torch.cat([g.flatten() for g in group]) for group in (found, expected))
    # fp32 sums in another order
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


@MODELS
@pytest.mark.parametrize("budget", BUDGETS)
def test_dropout_is_replayed_exactly(build: Build, budget: int) -> None:
    models = [build(torch.float64, 0.3) for _ in range(3)]
    torch.manual_seed(5)
    loss, found = cached(models[0], budget)
    after = torch.get_rng_state()
    torch.manual_seed(5)
    expected_loss, expected = in_kept_chunks(models[1], budget)
    assert torch.equal(after, torch.get_rng_state())  # nothing is drawn in the second pass
    torch.testing.assert_close(loss, expected_loss, rtol=1e-9, atol=0)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    torch.manual_seed(6)
    other, _ = in_kept_chunks(models[2], budget)
    assert not torch.isclose(loss, other, rtol=1e-6)  # there is a dropout to replay


def test_gradients_add_up_over_contrastive_batches() -> None:
    model, cache = full(torch.float64, 0.0), GradCache(chunk_tokens=60)
    for _ in range(2):  # a half is exact in the fp32 of the norms, too
        (0.5 * loss_of(cache.embed(model, contrastive_batch()))).backward()
        cache.backward(model, trained(model))
    _, expected = in_one(full(torch.float64, 0.0))
    for ours, theirs in zip(gradients(model), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_autocast_gives_every_weight_its_gradient() -> None:
    """Weights that a pass without gradient has cast must not be reused in the one that keeps its
    graph."""
    model, cache = full(torch.float32, 0.0), GradCache(chunk_tokens=60)

    def forward(tokens: TokenBatch) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return model(tokens)

    with torch.autocast("cpu", dtype=torch.bfloat16):  # Lightning's, around the whole step
        loss = loss_of(cache.embed(forward, contrastive_batch()))
    loss.backward()
    cache.backward(forward, trained(model))
    reference = full(torch.float32, 0.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss_of(reference(contrastive_batch())).backward()
    ours, theirs = (torch.cat([g.flatten() for g in gradients(m)]) for m in (model, reference))
    # bf16 rounds sums over other rows differently; a lost chunk would be worse than 0.1
    assert (ours - theirs).norm() <= 0.03 * theirs.norm()


@pytest.mark.parametrize("budget", BUDGETS)
def test_every_chunk_but_one_goes_forward_twice_and_one_backward_pass_is_the_last(
    budget: int,
) -> None:
    model = tiny_bi_encoder()
    sizes: list[int] = []
    lasts: list[bool] = []

    def forward(tokens: TokenBatch) -> Tensor:
        sizes.append(tokens.num_tokens)
        return model(tokens)

    def backward(embeddings: Tensor, gradient: Tensor, is_last: bool) -> None:
        embeddings.backward(gradient)
        lasts.append(is_last)

    cache = GradCache(chunk_tokens=budget)
    loss_of(cache.embed(forward, contrastive_batch())).backward()
    cache.backward(forward, trained(model), backward)
    num_chunks = len(plan_batches(LENGTHS, max_tokens_per_batch=budget))
    assert len(sizes) == 2 * num_chunks - 1
    assert max(sizes) <= max(budget, *LENGTHS)
    assert lasts == [False] * (num_chunks - 1) + [True]
