"""Drop entries of a matrix by a mask that is a hash of (seed, row, column), never stored.

The mask is recomputed wherever it is needed: in the backward pass, and in a second forward pass
(gradient checkpointing, GradCache). torch's dropout saves its mask, and torch.compile never
recomputes a random operator: it would save every dropped input of every projection. A hash is
ordinary integer arithmetic, which torch.compile recomputes and fuses.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

SEED_WORDS = 2
"""Number of int32 words of a seed."""

_WORD = 2**32
_HALF = 2**31


def draw_seeds(number: int, device: torch.device) -> list[Tensor]:
    """Draw independent seeds, each [2] int32, from torch's generator of the device.

    They are separate tensors: views into one would differ in their storage offset, for which
    torch.compile would recompile.
    """
    drawn = torch.randint(-_HALF, _HALF, (number, SEED_WORDS), dtype=torch.int32, device=device)
    seeds = [drawn.new_empty(SEED_WORDS) for _ in range(number)]
    torch._foreach_copy_(seeds, list(drawn.unbind()))
    return seeds


def dropped(x: Tensor, seed: Tensor, p: float) -> Tensor:
    """Return x with a share p of its entries set to 0; the others are not scaled.

    Args:
        x: [rows, columns], fewer than 2^31 of each.
        seed: [2] int32, see `draw_seeds`.
        p: dropout probability, 0 <= p < 1, in steps of 2^-31.
    """
    if x.is_cuda and not torch.compiler.is_compiling() and _has_triton():
        result: Tensor = torch.ops.quarry.dropped(x, seed, threshold(p))
        return result
    return torch.where(is_kept(x, seed, p), x, 0)


def is_kept(x: Tensor, seed: Tensor, p: float) -> Tensor:
    """Return the mask, [rows, columns] bool, of which a share p is False.

    The hash is a 32-bit finalizer with two multiplications (constants of Wellons' "lowbias32"). One
    word of the seed enters before it and one within it: without the second, the masks of two seeds
    would be permutations of each other. The second word is mixed by one multiplication alone, so
    seeds must be random numbers, not consecutive ones.
    """
    num_rows, num_columns = x.shape
    rows = torch.arange(num_rows, dtype=torch.int32, device=x.device)[:, None]
    columns = torch.arange(num_columns, dtype=torch.int32, device=x.device)[None, :]
    h = (rows * num_columns + columns) ^ seed[0]
    h = (h ^ _shifted(h, 16)) * 0x7FEB352D
    h = ((h + seed[1]) ^ _shifted(h + seed[1], 15)) * (0x846CA68B - _WORD)
    h = h ^ _shifted(h, 16)
    return (h & (_HALF - 1)) >= threshold(p)


def threshold(p: float) -> int:
    """Return the 31-bit hash value below which an entry is dropped."""
    return min(round(p * _HALF), _HALF - 1)


def _shifted(h: Tensor, bits: int) -> Tensor:
    """Shift int32 to the right without sign extension (logical shift)."""
    shifted: Tensor = (h >> bits) & (2 ** (32 - bits) - 1)
    return shifted


@cache
def _has_triton() -> bool:
    from torch.utils._triton import has_triton

    return bool(has_triton())


# In eager mode on a GPU the formula above would allocate a dozen temporaries of 4 bytes an entry.
torch.library.define("quarry::dropped", "(Tensor x, Tensor seed, int threshold) -> Tensor")


@torch.library.impl("quarry::dropped", "CUDA")
def _dropped_by_kernel(x: Tensor, seed: Tensor, limit: int) -> Tensor:
    from quarry.models.adapters.hashed_dropout_kernels import BLOCK, drop

    x = x.contiguous()
    out = torch.empty_like(x)
    num_rows, num_columns = x.shape
    if x.numel():
        grid = (num_rows, -(-num_columns // BLOCK))
        drop[grid](x, out, seed, num_columns, limit, BLOCK=BLOCK)
    return out
