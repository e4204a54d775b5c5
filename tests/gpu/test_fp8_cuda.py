"""The fp8 kernel against its emulation and bf16, and the fast LoRA path, compiled, on CUDA."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, silu

from helpers.models import tiny_qwen
from quarry.data.packing import pack
from quarry.models.adapters.fast_lora import use_fast_lora
from quarry.models.adapters.lora import LoRA
from quarry.models.adapters.lora_products import lora_product
from quarry.models.bi_encoder import BiEncoder
from quarry.models.compilation import compile_layers
from quarry.models.fp8 import (
    MIN_CAPABILITY,
    Fp8Linear,
    Scaled,
    quantize,
    scaled_product,
    use_fp8,
)
from quarry.models.fp8_gated import fuse_gated_layers, quantize_gated
from quarry.models.pooling.mean import Mean

has_cuda = torch.cuda.is_available()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not has_cuda, reason="no CUDA device")]
needs_fp8 = pytest.mark.skipif(
    not has_cuda or torch.cuda.get_device_capability() < MIN_CAPABILITY, reason="no fp8 products"
)

DEVICE = "cuda"
SIZES = [[40, 3, 77], [1, 1, 120, 15, 8, 9], [64] * 7, [33], [5, 90]]


def on_cpu(matrix: Scaled) -> Scaled:
    return Scaled(matrix.values.cpu(), matrix.scale.cpu())


@needs_fp8
@pytest.mark.parametrize("num_tokens", [1, 7, 333, 4096])
def test_the_kernel_equals_the_emulation(num_tokens: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(num_tokens, 512, device=DEVICE) * torch.rand(num_tokens, 1, device=DEVICE)
    weight = torch.randn(768, 512, device=DEVICE) * torch.rand(768, 1, device=DEVICE)
    left, right = quantize(x.bfloat16()), quantize(weight.bfloat16())
    ours = scaled_product(left, right, dtype=torch.bfloat16).float().cpu()
    expected = scaled_product(on_cpu(left), on_cpu(right), dtype=torch.float32)
    # fast accumulation keeps about 14 bits; the result is bf16
    assert (ours - expected).norm() <= 5e-3 * expected.norm()


@needs_fp8
def test_a_layer_and_its_gradient_are_close_to_bf16() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(512, 1024, device=DEVICE, dtype=torch.bfloat16).requires_grad_(False)
    linear.weight *= torch.logspace(-1, 1, 512, device=DEVICE).bfloat16()
    layer = Fp8Linear(linear, is_trained_through=True)
    x = torch.randn(1, 300, 512, device=DEVICE, dtype=torch.bfloat16, requires_grad=True)
    direction = torch.randn(1, 300, 1024, device=DEVICE, dtype=torch.bfloat16)
    y, expected = layer(x), linear(x)
    assert y.dtype == torch.bfloat16
    assert cosine_similarity(y.float(), expected.float(), dim=-1).min() > 0.995
    (dx,) = torch.autograd.grad((y * direction).sum(), x)
    (expected_dx,) = torch.autograd.grad((expected * direction).sum(), x)
    assert cosine_similarity(dx.float(), expected_dx.float(), dim=-1).min() > 0.995


@needs_fp8
@pytest.mark.parametrize("is_compiled", [False, True])
@pytest.mark.parametrize("num_columns", [512, 4864, 16_400, 18_944])
def test_a_gated_product_is_quantized_as_it_is_made(num_columns: int, is_compiled: bool) -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    settings = {"device": DEVICE, "dtype": torch.bfloat16}
    gate, up = torch.randn(333, num_columns, **settings), torch.randn(333, num_columns, **settings)
    up *= torch.logspace(-3, 3, 333, device=DEVICE)[:, None].bfloat16()
    up[7] = 0
    quantized = torch.compile(quantize_gated, dynamic=True) if is_compiled else quantize_gated
    ours = quantized(gate, up)
    expected = quantize(silu(gate.float()) * up.float())
    torch.testing.assert_close(ours.scale, expected.scale, rtol=1e-6, atol=0.0)
    # sigmoid and silu round apart: an entry on a border falls to the other side
    is_equal = ours.values.view(torch.uint8) == expected.values.view(torch.uint8)
    assert is_equal.float().mean() > 0.999


@needs_fp8
@torch.inference_mode()
def test_encoding_compiled_is_close_to_plain_for_all_sizes() -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    backbone = tiny_qwen(
        dtype=torch.bfloat16,
        hidden_size=2048,
        intermediate_size=4864,
        num_attention_heads=16,
        initializer_range=0.02,
    ).to(DEVICE)
    use_fp8(backbone, is_trained_through=False)
    assert fuse_gated_layers(backbone) == backbone.config.num_hidden_layers
    model = BiEncoder(backbone=backbone, pooling=Mean()).eval()
    random = np.random.default_rng(0)
    batches = [pack([random.integers(0, 128, n) for n in lengths]).to(DEVICE) for lengths in SIZES]
    expected = [model(batch) for batch in batches]
    compile_layers(backbone)
    for batch, plain in zip(batches, expected, strict=True):
        # a compiler rounds elsewhere, and some entries fall to another number of e4m3
        assert cosine_similarity(model(batch), plain).min() > 0.99


def lora_model() -> BiEncoder:
    adapter = LoRA(
        r=16,
        alpha=64,
        dropout=0.0,
        target_modules=[
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "gate_proj",
            "up_proj",
            "down_proj",
        ],
    )
    shape = {"hidden_size": 256, "intermediate_size": 512, "initializer_range": 0.05}
    backbone = adapter(tiny_qwen(dtype=torch.bfloat16, **shape))
    for name, parameter in backbone.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.01)
    return BiEncoder(backbone=backbone, pooling=Mean()).to(DEVICE).train()


def outcome(model: BiEncoder, lengths: list[int]) -> tuple[Tensor, Tensor]:
    """Embeddings, and all gradients in one row."""
    random = np.random.default_rng(len(lengths))
    tokens = pack([random.integers(0, 128, n) for n in lengths]).to(DEVICE)
    model.zero_grad()
    embeddings = model(tokens)
    direction = torch.linspace(-1, 1, embeddings.numel(), device=DEVICE).view_as(embeddings)
    (embeddings * direction).sum().backward()
    grads = [p.grad.float().flatten() for p in model.parameters() if p.grad is not None]
    return embeddings.detach(), torch.cat(grads)


def plain(backbone: PeftModel) -> None:
    use_fast_lora(backbone)


def fp8(backbone: PeftModel) -> None:
    use_fp8(backbone, is_trained_through=True)
    use_fast_lora(backbone)


@pytest.mark.parametrize("is_compiled", [False, True])
@pytest.mark.parametrize(
    ("prepare", "min_cosine"),
    [(plain, 0.99), pytest.param(fp8, 0.95, marks=needs_fp8)],
)
def test_lora_is_close_to_peft_for_all_sizes(
    prepare: Callable[[PeftModel], None],
    min_cosine: float,
    is_compiled: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    reference = lora_model()
    model = copy.deepcopy(reference)
    prepare(model.backbone)
    if is_compiled:
        compile_layers(model.backbone)
    with caplog.at_level(logging.WARNING, logger="quarry"):
        for lengths in SIZES:
            embeddings, gradients = outcome(model, lengths)
            expected, expected_gradients = outcome(reference, lengths)
            assert cosine_similarity(embeddings, expected).min() > min_cosine
            assert cosine_similarity(gradients, expected_gradients, dim=0) > min_cosine
    assert not caplog.records  # compiling did not fall back
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= (4 if is_compiled else 0)


def test_a_compiler_keeps_no_copy_of_the_weight() -> None:
    torch._dynamo.reset()
    settings = {"device": DEVICE, "dtype": torch.bfloat16}
    x, weight = torch.randn(64, 2048, **settings), torch.randn(4096, 2048, **settings)
    a = torch.randn(16, 2048, device=DEVICE, requires_grad=True)
    b = torch.randn(4096, 16, device=DEVICE, requires_grad=True)

    def layer(x: Tensor) -> Tensor:
        return lora_product(x, weight=weight, bias=None, a=a, b=2.0 * b)

    compiled = torch.compile(layer, dynamic=True, fullgraph=True)
    compiled(x.requires_grad_()).sum().backward()
    before = torch.cuda.memory_allocated()
    y = compiled(x)
    assert torch.cuda.memory_allocated() - before < weight.nbytes / 2
    y.sum().backward()
