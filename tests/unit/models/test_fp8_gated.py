"""Gated layers in fp8; the kernel itself is checked in tests/gpu/test_fp8_cuda.py."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import silu
from transformers import PreTrainedModel

from helpers.models import tiny_qwen
from quarry.models.fp8 import quantize, replace_linear_layers
from quarry.models.fp8_gated import Fp8GatedMlp, fuse_gated_layers, quantize_gated


def fp8_backbone(**shape: object) -> PreTrainedModel:
    backbone = tiny_qwen(dtype=torch.bfloat16, initializer_range=0.1, **shape)
    replace_linear_layers(backbone, is_trained_through=False)
    return backbone


@torch.no_grad()
def test_a_fused_backbone_computes_the_same() -> None:
    backbone = fp8_backbone()
    input_ids = torch.arange(5, 45)[None]
    expected = backbone(input_ids).last_hidden_state
    names = set(backbone.state_dict())
    assert fuse_gated_layers(backbone) == backbone.config.num_hidden_layers
    assert isinstance(backbone.layers[0].mlp, Fp8GatedMlp)
    assert set(backbone.state_dict()) == names
    torch.testing.assert_close(backbone(input_ids).last_hidden_state, expected, rtol=0.0, atol=0.0)


def test_another_activation_stays_as_it_is() -> None:
    assert fuse_gated_layers(fp8_backbone(hidden_act="gelu")) == 0


def test_a_backbone_that_is_not_in_fp8_stays_as_it_is() -> None:
    assert fuse_gated_layers(tiny_qwen()) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_product_is_quantized_row_by_row(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    gate, up = torch.randn(9, 48, dtype=dtype), torch.randn(9, 48, dtype=dtype)
    ours, expected = quantize_gated(gate, up), quantize(silu(gate) * up)
    assert torch.equal(ours.values.float(), expected.values.float())
    assert torch.equal(ours.scale, expected.scale)
