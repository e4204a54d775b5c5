"""Time steps and passes, and read peak memory, for all measurements."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quarry.data.jsonl import read_jsonl
from quarry.types import Document
from result_line import Result

NUM_COMPARED = 256
NUM_WARM_UP = 512
"""Texts of the warm-up, more than one batch."""


def read_documents(path: Path, *, limit: int | None = None) -> list[Document]:
    """Return the first documents of a JSONL corpus (`docid` or `_id`, `title`, `text`; or .gz)."""
    documents: list[Document] = []
    for _, record in read_jsonl(path):
        if len(documents) == limit:
            break
        name = str(record.get("docid", record.get("_id")))
        document = Document(
            document_id=name, text=str(record["text"]), title=str(record.get("title") or "")
        )
        documents.append(document)
    return documents


class Clock:
    """Measure tokens per second, without padding, over windows of steps.

    The device is synchronized at both ends of a window.

    Args:
        num_warm_up: steps before the first window, whose time is reported separately.
        num_steps: steps in windows.
        num_steps_per_window: steps of a window.
    """

    def __init__(self, *, num_warm_up: int, num_steps: int, num_steps_per_window: int) -> None:
        assert num_warm_up >= 1
        assert num_steps % num_steps_per_window == 0
        self.num_warm_up = num_warm_up
        self.num_steps = num_steps
        self.num_steps_per_window = num_steps_per_window
        self._mark = time.perf_counter()
        self._step = 0
        self._tokens: list[int | Tensor] = []
        self._warm_up_s = 0.0
        self._windows: list[tuple[int, float]] = []

    def tick(self, num_tokens: int | Tensor) -> bool:
        """Count a step, after its end; return True when all windows are full."""
        self._step += 1
        self._tokens.append(num_tokens)
        timed = self._step - self.num_warm_up
        if timed < 0 or timed % self.num_steps_per_window:
            return False
        synchronize()
        now = time.perf_counter()
        if timed == 0:
            self._warm_up_s = now - self._mark
            reset_peak()
        else:
            self._windows.append((sum(int(n) for n in self._tokens), now - self._mark))
        self._tokens, self._mark = [], time.perf_counter()
        return timed >= self.num_steps

    def result(self) -> Result:
        rates = [num_tokens / seconds for num_tokens, seconds in self._windows]
        return {
            "tokens_per_s": statistics.median(rates),
            "tokens_per_s_of_windows": [round(rate) for rate in rates],
            "num_tokens": sum(num_tokens for num_tokens, _ in self._windows),
            "num_steps": self.num_steps,
            "warm_up_s": self._warm_up_s,
            **peak(),
        }


def timed_passes(
    encode: Callable[[int], NDArray[np.float32]],
    *,
    num_texts: int,
    num_tokens: int,
    num_passes: int,
    compared_with: Path,
) -> Result:
    """Return the median rate of passes over all texts, after a pass over some of them.

    Args:
        encode: number of texts -> embeddings of that many first texts, [num_texts, dim], on the
            CPU.
        num_tokens: real tokens in all texts.
        compared_with: file of the embeddings of the first texts; the first call writes it, later
            ones report the smallest cosine to it.
    """
    start = time.perf_counter()
    encode(min(num_texts, NUM_WARM_UP))
    synchronize()
    warm_up_s = time.perf_counter() - start
    reset_peak()
    seconds = []
    for _ in range(num_passes):
        start = time.perf_counter()
        embeddings = encode(num_texts)
        seconds.append(time.perf_counter() - start)
    assert embeddings.shape[0] == num_texts
    assert np.isfinite(embeddings).all()
    return {
        "tokens_per_s": num_tokens / statistics.median(seconds),
        "tokens_per_s_of_passes": [round(num_tokens / each) for each in seconds],
        "num_tokens": num_tokens,
        "num_texts": num_texts,
        "warm_up_s": warm_up_s,
        **peak(),
        **agreement(embeddings, compared_with),
    }


def best_time(function: Callable[[], object], *, num_repeats: int) -> float:
    """Return the seconds of the fastest call, after one that is not timed."""
    times = []
    for _ in range(num_repeats + 1):
        synchronize()
        start = time.perf_counter()
        function()
        synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak() -> Result:
    """Return peak allocated and reserved memory since the last reset; {} on a CPU."""
    if not torch.cuda.is_available():
        return {}
    return {
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
        "peak_reserved_gib": torch.cuda.max_memory_reserved() / 2**30,
    }


def agreement(embeddings: NDArray[np.float32], compared_with: Path) -> Result:
    """Return the smallest cosine to the embeddings in a file; {} where this writes the file.

    Args:
        embeddings: [num_texts, dim]; the first `NUM_COMPARED` count.
    """
    first = embeddings[:NUM_COMPARED]
    if compared_with.exists():
        return {"smallest_cosine": smallest_cosine(first, np.load(compared_with))}
    np.save(compared_with, first)
    return {}


def smallest_cosine(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Return the smallest cosine between rows of the same number, both [num_texts, dim]."""
    products = (first * second).sum(axis=1)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float((products / lengths).min())
