"""Packed == one text at a time on CUDA: the grid in fp32, the variable-length kernel in bf16.

The reference is always plain transformers' attention, in fp32, one text at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize
from transformers import Qwen2Model

from helpers.models import tiny_qwen
from quarry.data.packing import pack
from quarry.models import attention
from quarry.models.bi_encoder import BiEncoder
from quarry.models.pooling.last_token import LastToken
from quarry.models.pooling.mean import Mean

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

DEVICE = "cuda"
LENGTHS = [1, 200, 2, 17, 3, 64, 1, 199, 31]
DIRECTIONS = pytest.mark.parametrize("is_causal", [True, False])


@pytest.fixture(autouse=True)
def _full_fp32_products() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def qwen(dtype: torch.dtype = torch.float32) -> Qwen2Model:
    """Two layers with the head size (64) and the grouped queries of the real ones."""
    settings = {"hidden_size": 256, "intermediate_size": 512, "initializer_range": 0.05}
    return tiny_qwen(dtype=dtype, **settings).to(DEVICE)


def texts() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 128, length) for length in LENGTHS]


def targets() -> Tensor:
    """One direction a text, for a scalar that has a gradient."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(len(LENGTHS), 256, generator=generator).to(DEVICE)


def one_at_a_time(rows: Sequence[np.ndarray], *, is_causal: bool) -> tuple[Tensor, list[Tensor]]:
    """Embeddings in fp32, and the gradient of their products with `targets`."""
    model = qwen()
    model.config.is_causal = is_causal
    embeddings = []
    for row, target in zip(rows, targets(), strict=True):
        ids = torch.from_numpy(row)[None].to(DEVICE)
        states = model(input_ids=ids, use_cache=False).last_hidden_state[0]
        embeddings.append(normalize(states.mean(dim=0), dim=0))
        (embeddings[-1] @ target).backward()
    return torch.stack(embeddings).detach(), gradients(model)


def packed(
    rows: Sequence[np.ndarray], *, is_causal: bool, dtype: torch.dtype
) -> tuple[Tensor, list[Tensor]]:
    """The same from one packed batch through the bi-encoder."""
    model = BiEncoder(backbone=qwen(dtype), pooling=Mean(), is_causal=is_causal)
    embeddings = model(pack(rows).to(DEVICE))
    (embeddings * targets()).sum().backward()
    return embeddings.detach(), gradients(model)


def gradients(model: torch.nn.Module) -> list[Tensor]:
    found = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None for gradient in found)
    return [gradient.float() for gradient in found if gradient is not None]


@pytest.fixture
def kernel_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The window of each call of the variable-length kernel."""
    calls: list[tuple[int, int]] = []
    kernel = attention._flash

    def counting(*args: Tensor, window: tuple[int, int], **kwargs: object) -> Tensor:
        calls.append(window)
        return kernel(*args, window=window, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(attention, "_flash", counting)
    return calls


@DIRECTIONS
def test_fp32_equals_one_at_a_time(is_causal: bool, kernel_calls: list[tuple[int, int]]) -> None:
    rows = texts()
    embeddings, grads = packed(rows, is_causal=is_causal, dtype=torch.float32)
    expected, expected_grads = one_at_a_time(rows, is_causal=is_causal)
    assert not kernel_calls
    # fp32 sums in another order
    torch.testing.assert_close(embeddings, expected, atol=1e-4, rtol=0)
    for ours, theirs in zip(grads, expected_grads, strict=True):
        assert (ours - theirs).norm() <= 1e-4 * theirs.norm()


@DIRECTIONS
def test_bf16_goes_through_the_kernel_and_is_close_to_fp32(
    is_causal: bool, kernel_calls: list[tuple[int, int]]
) -> None:
    rows = texts()
    embeddings, grads = packed(rows, is_causal=is_causal, dtype=torch.bfloat16)
    expected, expected_grads = one_at_a_time(rows, is_causal=is_causal)
    assert kernel_calls == [(-1, 0) if is_causal else (-1, -1)] * 2  # one a layer
    assert embeddings.dtype == torch.float32
    # bf16 has 8 bits: a wrong mask or border would show in the first digit
    assert cosine_similarity(embeddings, expected).min() > 0.999
    for ours, theirs in zip(grads, expected_grads, strict=True):
        assert cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.99


@DIRECTIONS
def test_company_in_the_batch_does_not_change_a_bf16_embedding(is_causal: bool) -> None:
    rows = texts()
    model = BiEncoder(backbone=qwen(torch.bfloat16), pooling=Mean(), is_causal=is_causal).eval()
    with torch.inference_mode():
        together = model(pack(rows).to(DEVICE))
        alone = torch.cat([model(pack([row]).to(DEVICE)) for row in rows])
    assert cosine_similarity(together, alone).min() > 0.999


@DIRECTIONS
def test_the_direction_shows_when_the_last_token_changes(is_causal: bool) -> None:
    model = BiEncoder(backbone=qwen(torch.bfloat16), pooling=Mean(), is_causal=is_causal).eval()
    before, after = texts(), texts()
    after[1][-1] = (after[1][-1] + 1) % 128
    with torch.inference_mode():
        first = model.token_states(pack(before).to(DEVICE))
        second = model.token_states(pack(after).to(DEVICE))
    start = LENGTHS[0]  # where the text with 200 tokens begins
    has_moved = (first - second).abs().amax(dim=1) > 0
    assert has_moved[start].item() == (not is_causal)
    assert has_moved[start + LENGTHS[1] - 1]
    # and no other text notices
    assert not has_moved[:start].any()
    assert not has_moved[start + LENGTHS[1] :].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("num_shared", [0, 18])
def test_pooled_tokens_alone_and_a_shared_prefix_give_the_same(
    num_shared: int, dtype: torch.dtype
) -> None:
    """The kernel aligns a causal mask of more keys than queries at the end."""
    prefix = np.arange(5, 5 + num_shared)
    rows = [np.concatenate([prefix, row]) for row in texts()]
    model = BiEncoder(backbone=qwen(dtype), pooling=LastToken()).eval()
    assert model.pools_in_last_layer
    tokens = pack(rows).to(DEVICE)
    with torch.inference_mode():
        expected = normalize(model.token_states(tokens)[tokens.cu_seqlens[1:].long() - 1].float())
        shared = model.encode_prefix(pack([prefix])) if num_shared else None
        found = model(pack(rows, num_shared=num_shared).to(DEVICE), shared)
    if dtype == torch.float32:
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    else:
        assert cosine_similarity(found, expected).min() > 0.999
