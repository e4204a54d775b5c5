"""Triton's part of fp8; imported on CUDA only, for Triton comes with torch's CUDA builds alone."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl


@triton.jit
def quantise_gated_rows(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    gate,
    up,
    values,
    scale,
    num_columns,
    limit,
    BLOCK: tl.constexpr,  # noqa: N803 (Triton's way to write what is known when compiling)
) -> Any:
    """One row of silu(gate) * up: its largest entry first, then each entry times limit / largest.

    What the first pass read is kept in the cache for the second, which lets it go.
    """
    start = tl.program_id(0).to(tl.int64) * num_columns
    columns = tl.arange(0, BLOCK)
    largest = tl.zeros([BLOCK], tl.float32)
    for first in range(0, num_columns, BLOCK):
        mask = first + columns < num_columns
        at = start + first + columns
        g = tl.load(gate + at, mask=mask, other=0.0, eviction_policy="evict_last").to(tl.float32)
        u = tl.load(up + at, mask=mask, other=0.0, eviction_policy="evict_last").to(tl.float32)
        largest = tl.maximum(largest, tl.abs(g * tl.sigmoid(g) * u))
    most = tl.maximum(tl.max(largest, axis=0), 1e-12)  # a row may be zero
    factor = limit / most
    for first in range(0, num_columns, BLOCK):
        mask = first + columns < num_columns
        at = start + first + columns
        g = tl.load(gate + at, mask=mask, other=0.0, eviction_policy="evict_first").to(tl.float32)
        u = tl.load(up + at, mask=mask, other=0.0, eviction_policy="evict_first").to(tl.float32)
        # what rounding lifts above the maximum would become NaN
        x = tl.minimum(tl.maximum(g * tl.sigmoid(g) * u * factor, -limit), limit)
        tl.store(values + at, x.to(values.dtype.element_ty), mask=mask)
    tl.store(scale + tl.program_id(0), most / limit)
