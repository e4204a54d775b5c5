"""Triton kernel of `hashed_dropout`; import it on CUDA only: other builds of torch lack Triton."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

BLOCK = 1024
"""Number of columns of one Triton program."""


@triton.jit
def drop(x, out, seed, num_columns, threshold, BLOCK: tl.constexpr) -> Any:  # type: ignore[no-untyped-def]  # noqa: N803, PLR0917
    """Write BLOCK columns of a row with dropped entries as 0, by the same mask as `is_kept`."""
    row = tl.program_id(0)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < num_columns
    h = (row * num_columns + columns).to(tl.uint32) ^ tl.load(seed).to(tl.uint32, bitcast=True)
    h = (h ^ (h >> 16)) * 0x7FEB352D
    h = h + tl.load(seed + 1).to(tl.uint32, bitcast=True)
    h = (h ^ (h >> 15)) * 0x846CA68B
    h = h ^ (h >> 16)
    at = row.to(tl.int64) * num_columns + columns
    kept = tl.load(x + at, mask=inside, other=0.0)
    is_kept = (h & 0x7FFFFFFF).to(tl.int32) >= threshold
    tl.store(out + at, tl.where(is_kept, kept, 0.0), mask=inside)
