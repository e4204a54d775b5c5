"""Download results from the device on a separate stream, while the next batch is computed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """A tensor that is being copied to the CPU."""

    host: Tensor
    is_done: torch.cuda.Event | None

    def result(self) -> Tensor:
        """Return the tensor, fp32, on the CPU; wait for it if necessary."""
        if self.is_done is not None:
            self.is_done.synchronize()
        return self.host


class Downloader:
    """Starts downloads from one device. From the CPU to the CPU they are plain copies."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def start(self, tensor: Tensor) -> Download:
        """Start to copy `tensor` once the work queued so far is done; return at once."""
        is_pinned = self._stream is not None
        host = torch.empty(tensor.shape, dtype=torch.float32, pin_memory=is_pinned)
        if self._stream is None:
            return Download(host=host.copy_(tensor), is_done=None)
        self._stream.wait_stream(torch.cuda.current_stream(tensor.device))
        with torch.cuda.stream(self._stream):
            host.copy_(tensor, non_blocking=True)
            is_done = self._stream.record_event()
        tensor.record_stream(self._stream)
        return Download(host=host, is_done=is_done)
