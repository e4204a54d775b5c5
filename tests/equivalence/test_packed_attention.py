"""Packed == one text at a time, whatever the lengths, the direction and the order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers.models import tiny_bi_encoder, tiny_qwen
from quarry.data.packing import pack, plan_batches
from quarry.models.pooling.last_token import LastToken
from quarry.models.pooling.mean import Mean

# fp32 sums in another order; states are of size 1
TOLERANCE = 1e-5


def texts(lengths: list[int]) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 128, length) for length in lengths]


MIXED = [1, 200, 2, 17, 3, 64, 1, 199, 31]


@pytest.mark.parametrize("is_causal", [True, False])
def test_packed_states_equal_each_text_alone_in_plain_transformers(
    is_causal: bool,
) -> None:
    model = tiny_bi_encoder(is_causal=is_causal)
    rows = texts(MIXED)
    with torch.inference_mode():
        packed = model.token_states(pack(rows)).split(MIXED)
        reference = tiny_qwen()  # the same seed, transformers' own attention
        reference.config.is_causal = is_causal
        for states, ids in zip(packed, rows, strict=True):
            alone = reference(input_ids=torch.tensor(ids)[None], use_cache=False).last_hidden_state
            torch.testing.assert_close(states, alone[0], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("window", [1, 3, 50])
def test_packed_sliding_window_equals_transformers(window: int) -> None:
    settings = {
        "use_sliding_window": True,
        "sliding_window": window,
        "max_window_layers": 0,
    }
    packed_backbone = tiny_qwen(**settings)
    assert "sliding_attention" in packed_backbone.config.layer_types
    from quarry.models.bi_encoder import BiEncoder

    model = BiEncoder(backbone=packed_backbone, pooling=Mean()).eval()
    reference = tiny_qwen(**settings)
    rows = texts([1, 40, 7])
    with torch.inference_mode():
        packed = model.token_states(pack(rows)).split([1, 40, 7])
        for states, ids in zip(packed, rows, strict=True):
            alone = reference(input_ids=torch.tensor(ids)[None], use_cache=False).last_hidden_state
            torch.testing.assert_close(states, alone[0], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("pooling", [LastToken(), Mean()])
@pytest.mark.parametrize("is_causal", [True, False])
def test_packed_embeddings_equal_one_at_a_time(pooling: object, is_causal: bool) -> None:
    model = tiny_bi_encoder(pooling=pooling, is_causal=is_causal)  # type: ignore[arg-type]
    rows = texts(MIXED)
    with torch.inference_mode():
        together = model(pack(rows))
        alone = torch.cat([model(pack([row])) for row in rows])
    torch.testing.assert_close(together, alone, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("is_causal", [True, False])
def test_order_and_company_in_the_batch_do_not_change_an_embedding(is_causal: bool) -> None:
    model = tiny_bi_encoder(is_causal=is_causal)
    rows = texts(MIXED)
    shuffled = np.random.default_rng(1).permutation(len(rows))
    with torch.inference_mode():
        whole = model(pack(rows))
        moved = model(pack([rows[i] for i in shuffled]))
        planned = torch.empty_like(whole)
        for batch in plan_batches(MIXED, max_tokens_per_batch=205):
            planned[torch.from_numpy(batch)] = model(pack([rows[i] for i in batch]))
    torch.testing.assert_close(moved, whole[shuffled], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(planned, whole, atol=TOLERANCE, rtol=0)


def test_gradients_of_a_packed_batch_equal_the_sum_of_single_texts() -> None:
    rows = texts([1, 30, 5])
    weights = torch.randn(3, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def gradients(batches: list[list[np.ndarray]]) -> list[torch.Tensor]:
        model = tiny_bi_encoder(dtype=torch.float64)
        start = 0
        for batch in batches:
            (model(pack(batch)) * weights[start : start + len(batch)]).sum().backward()
            start += len(batch)
        return [p.grad for p in model.parameters() if p.grad is not None]

    for packed, single in zip(gradients([rows]), gradients([[row] for row in rows]), strict=True):
        torch.testing.assert_close(packed, single, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("is_causal", [True, False])
def test_direction_of_attention_shows_when_the_last_token_changes(is_causal: bool) -> None:
    model = tiny_bi_encoder(is_causal=is_causal)
    row = texts([12])[0]
    changed = row.copy()
    changed[-1] = (changed[-1] + 1) % 128
    with torch.inference_mode():
        before = model.token_states(pack([row]))
        after = model.token_states(pack([changed]))
    first_state_moved = not torch.equal(before[0], after[0])
    assert first_state_moved == (not is_causal)
    assert not torch.allclose(before[-1], after[-1])


def test_everything_after_the_backbone_is_fp32_even_under_autocast_and_bf16_weights() -> None:
    model = tiny_bi_encoder(dtype=torch.bfloat16)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        embeddings = model(pack(texts([5, 9])))
    assert embeddings.dtype == torch.float32
    # bf16 could not hold a unit length this closely
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2), atol=1e-6, rtol=0)
