"""Measure how much time evaluations spend on encoding, and how much on search."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from quarry.retrieval.embeddings import Embeddings, EmbeddingShare, TextEncoder
from quarry.types import Document, Query, Role

Result = TypeVar("Result")


@dataclass(kw_only=True)
class RetrievalTimes:
    """Seconds that this rank spent on all retrievals so far.

    Attributes:
        encoding_s: time for embeddings, tokenization included.
        searching_s: time for everything else: search, BM25 and its index, fusion.
    """

    encoding_s: float = 0.0
    searching_s: float = 0.0

    def measure(
        self, retrieve: Callable[[TextEncoder | None], Result], encoder: TextEncoder | None
    ) -> Result:
        """Call `retrieve` with a timed encoder, add its times, and return its result."""
        watched = None if encoder is None else TimedEncoder(encoder, times=self)
        start, before = time.perf_counter(), self.encoding_s
        try:
            return retrieve(watched)
        finally:
            self.searching_s += time.perf_counter() - start - (self.encoding_s - before)


class TimedEncoder:
    """Wrapper of an encoder that records encoding times; other attributes are the encoder's.

    Args:
        encoder: the wrapped encoder.
        times: receives the seconds.
    """

    def __init__(self, encoder: TextEncoder, *, times: RetrievalTimes) -> None:
        self.encoder = encoder
        self.times = times

    @property
    def device(self) -> torch.device:
        return self.encoder.device

    def __getattr__(self, name: str) -> Any:
        return getattr(self.encoder, name)

    def encode(
        self, items: Sequence[Query | Document], role: Role, *, label: str = ""
    ) -> Embeddings:
        return self._timed(lambda: self.encoder.encode(items, role, label=label))

    def encode_share(
        self, items: Sequence[Query | Document], role: Role, *, label: str = ""
    ) -> EmbeddingShare:
        return self._timed(lambda: self.encoder.encode_share(items, role, label=label))

    def _timed(self, work: Callable[[], Result]) -> Result:
        start = time.perf_counter()
        try:
            return work()
        finally:
            self.times.encoding_s += time.perf_counter() - start
