"""Copy embeddings from memory or a mapped file to the device that searches them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import torch
from torch import Tensor

from quarry.retrieval.embeddings import Embeddings
from quarry.runtime.ahead import run_ahead

NUM_ROWS_PER_COPY = 4_096
"""Rows in one pinned buffer: enough for full copy speed, with little memory."""


def device_chunks(embeddings: Embeddings, *, size: int, device: torch.device) -> Iterator[Tensor]:
    """Yield the embeddings in order, [size, dim] at a time, on `device`, in their own dtype.

    The last chunk is padded with zeros, so that all have one shape: a product of another shape may
    sum in another order, and equal documents would then score differently. From the CPU to CUDA the
    next chunk is read and copied while one is in use.

    Args:
        embeddings: [num_embeddings, dim], on the CPU or on `device`; may be mapped from files.
    """
    starts = range(0, len(embeddings), size)
    is_there = isinstance(embeddings, Tensor) and embeddings.is_cuda
    if device.type != "cuda" or is_there:
        for start in starts:
            yield _filled(embeddings[start : start + size], size).to(device)
        return
    side = torch.cuda.Stream(device)
    work = torch.cuda.current_stream(device)

    def load(start: int) -> tuple[Tensor, torch.cuda.Event]:
        with torch.cuda.stream(side):
            chunk = _copied(embeddings, range(start, start + size), device)
            return chunk, side.record_event()

    with closing(run_ahead(load, starts, num_ahead=1)) as loaded:
        for chunk, is_loaded in loaded:
            work.wait_event(is_loaded)
            chunk.record_stream(work)
            yield chunk


def _copied(embeddings: Embeddings, rows: range, device: torch.device) -> Tensor:
    """Return these rows, then zeros where there are none; read and copy a few at a time."""
    chunk = torch.empty(len(rows), embeddings.shape[1], dtype=embeddings.dtype, device=device)
    stop = min(rows.stop, len(embeddings))
    chunk[stop - rows.start :] = 0
    for start in range(rows.start, stop, NUM_ROWS_PER_COPY):
        part = embeddings[start : min(start + NUM_ROWS_PER_COPY, stop)].pin_memory()
        offset = start - rows.start
        chunk[offset : offset + len(part)].copy_(part, non_blocking=True)
    return chunk


def _filled(rows: Tensor, size: int) -> Tensor:
    if len(rows) == size:
        return rows
    filled = rows.new_zeros(size, rows.shape[1])
    filled[: len(rows)] = rows
    return filled
