"""Triton kernel of `fp8_gated`; import it on CUDA only: only torch's CUDA builds have Triton."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl


@triton.jit
def quantize_gated_rows(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    gate,
    up,
    values,
    scale,
    num_columns,
    limit,
    HEAD: tl.constexpr,  # noqa: N803 (Triton's convention for compile-time constants)
    TAIL: tl.constexpr,  # noqa: N803
) -> Any:
    """Quantize one row of silu(gate) * up, held in registers: find its maximum, then scale it.

    Args:
        HEAD, TAIL: powers of two whose sum is `num_columns` or more. A single one could be almost
            twice as long as the row, and the time grows with it.
    """
    start = tl.program_id(0).to(tl.int64) * num_columns
    columns = tl.arange(0, HEAD)
    head, in_head = start + columns, columns < num_columns
    columns = HEAD + tl.arange(0, TAIL)
    tail, in_tail = start + columns, columns < num_columns
    x, y = _gated(gate, up, head, in_head), _gated(gate, up, tail, in_tail)
    most = tl.maximum(tl.max(tl.abs(x), axis=0), tl.max(tl.abs(y), axis=0))
    most = tl.maximum(most, 1e-12)  # a row may be zero
    _store_scaled(values, head, in_head, x, limit, most)
    _store_scaled(values, tail, in_tail, y, limit, most)
    tl.store(scale + tl.program_id(0), most / limit)


@triton.jit
def _gated(gate, up, at, mask) -> Any:  # type: ignore[no-untyped-def]
    g = tl.load(gate + at, mask=mask, other=0.0).to(tl.float32)
    u = tl.load(up + at, mask=mask, other=0.0).to(tl.float32)
    # tl.sigmoid takes the natural exponential function, which is slower
    return g * u / (1.0 + tl.exp2(g * -1.4426950408889634))


@triton.jit
def _store_scaled(values, at, mask, x, limit, most) -> None:  # type: ignore[no-untyped-def]  # noqa: PLR0917
    # what rounding lifts above the maximum would become NaN
    x = tl.minimum(tl.maximum(x * (limit / most), -limit), limit)
    tl.store(values + at, x.to(values.dtype.element_ty), mask=mask)
