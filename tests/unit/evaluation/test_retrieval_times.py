"""Encoding and search are told apart, whatever fails in between."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from quarry.evaluation.retrieval_times import RetrievalTimes


class SlowEncoder:
    """Takes four seconds for queries and ten for a corpus."""

    device = torch.device("cpu")

    def __init__(self, clock: SimpleNamespace) -> None:
        self.clock = clock

    def encode(self, items: Any, role: str, *, label: str = "") -> Any:
        self.clock.s += 4
        return (role, label)

    def encode_share(self, items: Any, role: str, *, label: str = "") -> Any:
        self.clock.s += 10
        return (role, label)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    now = SimpleNamespace(s=0.0)
    monkeypatch.setattr(time, "perf_counter", lambda: now.s)
    return now


def test_search_is_what_is_left(clock: SimpleNamespace) -> None:
    def retrieve(encoder: Any) -> list[Any]:
        found = [encoder.encode([], "query", label="x"), encoder.encode_share([], "document")]
        clock.s += 3
        return [*found, encoder.device]

    times, encoder = RetrievalTimes(), SlowEncoder(clock)
    for _ in range(2):
        found = times.measure(retrieve, encoder)  # type: ignore[arg-type]
        assert found == [("query", "x"), ("document", ""), torch.device("cpu")]
    assert (times.encoding_s, times.searching_s) == (28.0, 6.0)


def test_without_an_encoder_all_is_search(clock: SimpleNamespace) -> None:
    def retrieve(encoder: Any) -> None:
        assert encoder is None
        clock.s += 3

    times = RetrievalTimes()
    times.measure(retrieve, None)
    assert (times.encoding_s, times.searching_s) == (0.0, 3.0)


def test_what_failed_has_taken_its_time(clock: SimpleNamespace) -> None:
    def retrieve(encoder: Any) -> None:
        encoder.encode([], "query")
        raise RuntimeError("no room")

    times = RetrievalTimes()
    with pytest.raises(RuntimeError, match="no room"):
        times.measure(retrieve, SlowEncoder(clock))  # type: ignore[arg-type]
    assert (times.encoding_s, times.searching_s) == (4.0, 0.0)
