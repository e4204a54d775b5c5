"""The bi-encoder's own decisions; packed attention has its tests in tests/equivalence."""

from __future__ import annotations

import pytest
import torch

from helpers.models import tiny_bi_encoder, tiny_qwen
from quarry.data.packing import pack
from quarry.models.attention import PACKED
from quarry.models.bi_encoder import BiEncoder
from quarry.models.pooling.last_token import LastToken
from quarry.models.pooling.mean import Mean

TOKENS = pack([[5, 6, 7, 8], [9], [3, 4]])


def test_embeddings_are_the_pooled_states_at_length_1() -> None:
    model = tiny_bi_encoder(pooling=LastToken())
    with torch.inference_mode():
        embeddings = model(TOKENS)
        last = model.token_states(TOKENS)[torch.tensor([3, 4, 6])]
    assert embeddings.shape == (3, model.embedding_dim) == (3, 32)
    torch.testing.assert_close(embeddings, last / last.norm(dim=1, keepdim=True))
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))


def test_without_normalisation() -> None:
    model = BiEncoder(backbone=tiny_qwen(), pooling=Mean(), normalize=False).eval()
    with torch.inference_mode():
        states = model.token_states(TOKENS)
        embeddings = model(TOKENS)
    torch.testing.assert_close(embeddings[0], states[:4].mean(dim=0))
    assert not torch.allclose(embeddings.norm(dim=1), torch.ones(3), atol=0.1)


@pytest.mark.parametrize(
    ("backbone", "embeddings"),
    [
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.bfloat16, torch.float32),
    ],
)
def test_dtypes(backbone: torch.dtype, embeddings: torch.dtype) -> None:
    model = tiny_bi_encoder(dtype=backbone)
    with torch.inference_mode():
        assert model.token_states(TOKENS).dtype == backbone
        assert model(TOKENS).dtype == embeddings


@pytest.mark.parametrize("is_causal", [True, False])
def test_the_direction_is_noted_in_the_config_that_is_saved(is_causal: bool) -> None:
    model = tiny_bi_encoder(is_causal=is_causal)
    assert model.backbone.config.is_causal == is_causal
    assert model.backbone.config._attn_implementation == PACKED


def test_every_parameter_of_the_backbone_that_is_used_gets_a_gradient() -> None:
    model = tiny_bi_encoder()
    (model(TOKENS) * torch.arange(32.0)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
