"""fp8 products: scales, the algebra of both directions, LoRA on top, and who is refused.

On a CPU the scaled product is emulated (factors scaled back, then multiplied); the kernel itself is
checked in tests/gpu/test_fp8_cuda.py.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from helpers.models import tiny_qwen
from quarry.data.packing import pack
from quarry.errors import UserError
from quarry.models.adapters.fast_lora import FastLoraSummary, use_fast_lora
from quarry.models.adapters.lora import LoRA
from quarry.models.bi_encoder import BiEncoder
from quarry.models.fp8 import (
    FP8,
    Fp8Linear,
    Scaled,
    check_fp8,
    quantize,
    replace_linear_layers,
    scaled_product,
    use_fp8,
)
from quarry.models.pooling.mean import Mean
from quarry.runtime.devices import planned_for_gpu

TOKENS = pack([[5, 6, 7, 8], [9], list(range(20, 51))])


def dequantized(matrix: Scaled) -> Tensor:
    return matrix.values.double() * matrix.scale.double()


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


def bi_encoder() -> BiEncoder:
    adapter = LoRA(r=4, alpha=8, dropout=0.0, target_modules=["q_proj", "v_proj", "down_proj"])
    backbone = adapter(tiny_qwen(dtype=torch.bfloat16, initializer_range=0.1))
    for name, parameter in backbone.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    return BiEncoder(backbone=backbone, pooling=Mean())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1e-9, 1.0, 1e6])
def test_each_row_is_scaled_by_its_own_maximum(dtype: torch.dtype, size: float) -> None:
    torch.manual_seed(0)
    rows = (torch.randn(64, 48) * torch.logspace(-3, 3, 64)[:, None] * size).to(dtype)
    rows[5] = 0
    result = quantize(rows)
    assert result.values.dtype == FP8
    assert (result.scale.dtype, result.scale.shape) == (torch.float32, (64, 1))
    assert result.values.float().isfinite().all()
    largest = result.values.float().abs().amax(dim=1)
    assert (largest[torch.arange(64) != 5] == 448).all()
    assert not result.values[5].float().any()
    # three bits behind the leading one: half a step is 1/16; the smallest entries are coarser
    error = (dequantized(result) - rows.double()).abs()
    assert (
        error <= rows.double().abs() / 16 + dequantized(result).abs().amax(1)[:, None] / 2e5
    ).all()


def test_a_row_that_is_not_finite_stays_visible() -> None:
    rows = torch.tensor([[1.0, float("nan")], [1.0, float("inf")], [1.0, 2.0]])
    product = scaled_product(quantize(rows), quantize(torch.ones(3, 2)), dtype=torch.float32)
    assert product.isfinite().all(dim=1).tolist() == [False, False, True]


def test_the_scaled_product_is_that_of_the_quantized_factors() -> None:
    torch.manual_seed(0)
    left, right = quantize(torch.randn(5, 32)), quantize(torch.randn(48, 32))
    product = scaled_product(left, right, dtype=torch.float32)
    assert relative(product, dequantized(left) @ dequantized(right).t()) < 1e-6


@pytest.mark.parametrize("has_bias", [True, False])
def test_a_layer_and_its_gradient_are_close_to_the_original(has_bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 96, bias=has_bias).requires_grad_(False)
    # rows and columns of different size: scales along the wrong axis would show
    linear.weight *= torch.logspace(-1, 1, 96)[:, None] * torch.logspace(-1, 1, 64)[None]
    layer = Fp8Linear(linear, is_trained_through=True)
    x = torch.randn(2, 7, 64, requires_grad=True)
    direction = torch.randn(2, 7, 96)
    y, expected = layer(x), linear(x)
    assert y.shape == expected.shape
    assert relative(y.detach(), expected.detach()) < 0.05
    (dx,) = torch.autograd.grad((y * direction).sum(), x)
    (expected_dx,) = torch.autograd.grad((expected * direction).sum(), x)
    assert relative(dx, expected_dx) < 0.05
    assert cosine_similarity(dx, expected_dx, dim=-1).min() > 0.995


def test_nothing_of_the_input_is_kept_for_the_backward_pass() -> None:
    layer = Fp8Linear(nn.Linear(16, 32), is_trained_through=True)
    kept: list[torch.dtype] = []

    def pack_hook(tensor: Tensor) -> Tensor:
        kept.append(tensor.dtype)
        return tensor

    x = torch.randn(4, 16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack_hook, lambda tensor: tensor):
        layer(x)
    assert kept == [FP8, torch.float32]


def test_a_layer_for_encoding_takes_half_the_memory() -> None:
    linear = nn.Linear(64, 128, bias=False, dtype=torch.bfloat16)
    sizes = [
        sum(b.nbytes for b in Fp8Linear(linear, is_trained_through=through).buffers())
        for through in (False, True)
    ]
    assert sizes == [64 * 128 + 4 * 128, 2 * 64 * 128 + 4 * (64 + 128)]


def test_a_backbone_with_lora_stays_close_to_bf16() -> None:
    model = bi_encoder()
    direction = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))

    def outcome() -> tuple[Tensor, Tensor]:
        model.zero_grad()
        embeddings = model(TOKENS)
        (embeddings * direction).sum().backward()
        trained = [p.grad for p in model.parameters() if p.requires_grad]
        return embeddings.detach(), torch.cat([gradient.flatten() for gradient in trained])

    use_fast_lora(model.backbone)
    expected, expected_gradients = outcome()
    replace_linear_layers(model.backbone, is_trained_through=True)
    assert use_fast_lora(model.backbone) == FastLoraSummary(num_fast=6, reasons={})
    embeddings, gradients = outcome()
    assert gradients.dtype == torch.float32
    # measured: 0.9987 and 0.990; four bits a number in two layers of random weights
    assert cosine_similarity(embeddings, expected).min() > 0.995
    assert cosine_similarity(gradients, expected_gradients, dim=0) > 0.97


def test_pefts_own_path_runs_over_an_fp8_base_too() -> None:
    model = bi_encoder().eval()
    replace_linear_layers(model.backbone, is_trained_through=False)
    with torch.inference_mode():
        theirs = model(TOKENS)
        use_fast_lora(model.backbone)
        assert cosine_similarity(model(TOKENS), theirs).min() > 0.999


def test_every_linear_layer_but_adapters_is_replaced_and_survives_a_copy() -> None:
    model = bi_encoder().eval()
    replace_linear_layers(model.backbone, is_trained_through=False)
    kinds = [type(module) for module in model.modules()]
    assert kinds.count(Fp8Linear) == 14
    assert kinds.count(nn.Linear) == 12  # A and B of six layers
    assert all("lora_" in name for name, p in model.named_parameters() if p.requires_grad)
    with torch.inference_mode():
        expected = model(TOKENS)
        assert torch.equal(copy.deepcopy(model)(TOKENS), expected)
        other = bi_encoder().eval()
        replace_linear_layers(other.backbone, is_trained_through=False)
        other.load_state_dict(model.state_dict())
        assert torch.equal(other(TOKENS), expected)


def test_a_layer_compiles_without_a_break_for_all_numbers_of_tokens() -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    layer = Fp8Linear(nn.Linear(32, 48), is_trained_through=True)
    compiled = torch.compile(layer, backend="aot_eager", dynamic=True, fullgraph=True)
    for num_tokens in (3, 17, 9):
        x = torch.randn(num_tokens, 32, requires_grad=True)
        torch.testing.assert_close(compiled(x), layer(x))
        compiled(x).sum().backward()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_a_device_without_fp8_is_refused_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UserError, match=r"model\.linear_precision=fp8 needs a CUDA device.*on cpu"):
        check_fp8(on_cpu=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"model\.linear_precision=fp8 needs a CUDA device.*on cpu"):
        check_fp8(on_cpu=False)
    with planned_for_gpu():  # of another machine
        check_fp8(on_cpu=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "A100")
    with pytest.raises(UserError, match=r"needs compute capability .* A100 has 8\.0"):
        check_fp8(on_cpu=False)


def test_a_device_without_fp8_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"model\.linear_precision=fp8 needs a CUDA device.*on cpu.*null"
    ):
        use_fp8(bi_encoder().backbone, is_trained_through=True)


@pytest.mark.parametrize(
    ("capability", "num_heads", "is_frozen", "message"),
    [
        ((8, 0), 4, True, r"capability 8\.9 or later; an A100 has 8\.0"),
        ((9, 0), 3, True, r"layers\.0\.self_attn\.q_proj is 32 x 24 .*multiples of 16"),
        ((9, 0), 4, False, r"layers\.0\.self_attn\.q_proj is trained.*model/adapter=lora"),
    ],
)
def test_what_does_not_fit_is_refused(
    capability: tuple[int, int],
    num_heads: int,
    is_frozen: bool,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from quarry.models import fp8

    real = fp8._check_device
    monkeypatch.setattr(fp8, "_check_device", lambda device: real(torch.device("cuda")))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "an A100")
    heads = {"num_attention_heads": num_heads, "num_key_value_heads": num_heads, "head_dim": 8}
    backbone = tiny_qwen(**heads).requires_grad_(not is_frozen)
    with pytest.raises(UserError, match=message):
        use_fp8(backbone, is_trained_through=True)
    assert not any(isinstance(module, Fp8Linear) for module in backbone.modules())
