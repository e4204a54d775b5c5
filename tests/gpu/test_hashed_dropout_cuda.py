"""The kernel's mask == the formula's, and a compiled layer's gradients == those in eager mode."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from helpers.models import tiny_qwen
from quarry.data.packing import pack
from quarry.models.adapters.fast_lora import use_fast_lora
from quarry.models.adapters.hashed_dropout import draw_seeds, dropped, is_kept
from quarry.models.adapters.lora import LoRA
from quarry.models.bi_encoder import BiEncoder
from quarry.models.building import set_layer_modes
from quarry.models.fp8 import use_fp8
from quarry.models.gradient_checkpointing import SELECTIVE
from quarry.models.pooling.mean import Mean

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1), (3, 1024), (257, 3584), (100_000, 1025), (0, 8)])
@pytest.mark.parametrize("p", [0.1, 0.0, 0.9999])
def test_the_kernel_drops_what_the_formula_drops(
    dtype: torch.dtype, shape: tuple[int, int], p: float
) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=dtype, device="cuda")
    (seed,) = draw_seeds(1, x.device)
    expected = torch.where(is_kept(x, seed, p), x, 0)
    assert torch.equal(dropped(x, seed, p), expected)
    on_cpu = is_kept(x.cpu(), seed.cpu(), p)
    assert torch.equal(on_cpu, is_kept(x, seed, p).cpu()), "the same on every device"


def test_compiled_it_is_the_same() -> None:
    x = torch.randn(513, 3584, dtype=torch.bfloat16, device="cuda")
    (seed,) = draw_seeds(1, x.device)
    compiled = torch.compile(lambda y, s: dropped(y, s, 0.1), dynamic=True)
    assert torch.equal(compiled(x, seed), dropped(x, seed, 0.1))


TOKENS = pack([list(range(k, k + 40)) for k in range(30)])


def gradients(checkpointing: bool | str, *, is_fp8: bool, is_compiled: bool) -> Tensor:
    """Those of LoRA with dropout, all in one row, always with the same random numbers."""
    torch.manual_seed(0)
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    adapter = LoRA(r=8, alpha=16, dropout=0.2, target_modules=names)
    settings = {"hidden_size": 256, "intermediate_size": 512, "initializer_range": 0.05}
    backbone = adapter(tiny_qwen(dtype=torch.bfloat16, **settings))
    for name, parameter in backbone.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.05)
    backbone.to("cuda")
    if is_fp8:
        use_fp8(backbone, is_trained_through=True)
    assert use_fast_lora(backbone).reasons == {}
    model = BiEncoder(backbone=backbone, pooling=Mean()).train()
    torch._dynamo.reset()
    set_layer_modes(backbone, gradient_checkpointing=checkpointing, is_compiled=is_compiled)
    torch.manual_seed(5)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        embeddings = model(TOKENS.to("cuda"))
    (embeddings * torch.linspace(-1, 1, 256, device="cuda")).sum().backward()
    found = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    assert len(found) == 2 * 2 * len(names)
    return torch.cat(found).double()


@pytest.mark.parametrize("is_fp8", [False, True], ids=["bf16", "fp8"])
def test_the_same_entries_are_dropped_however_it_is_run(is_fp8: bool) -> None:
    """Gradients differ by rounding alone; other masks would make a tenth of difference and more."""
    expected = gradients(False, is_fp8=is_fp8, is_compiled=False)

    def off(found: Tensor) -> float:
        return float((found - expected).norm() / expected.norm())

    assert off(gradients(True, is_fp8=is_fp8, is_compiled=False)) < 1e-6
    for checkpointing in (False, SELECTIVE, True):
        found = gradients(checkpointing, is_fp8=is_fp8, is_compiled=True)
        # fp8 rounds again where bf16 rounds otherwise
        assert off(found) < (0.1 if is_fp8 else 0.03), checkpointing
