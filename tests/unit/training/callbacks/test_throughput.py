"""Rates are of real tokens; peak memory is told where somebody counts it."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from quarry.training.callbacks.throughput import Throughput

GIB = 2**30


class Module:
    """What the callback needs of a LightningModule."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.logged: list[dict[str, float]] = []

    def log_dict(self, values: dict[str, float]) -> None:
        self.logged.append(values)


def train(callback: Throughput, module: Any, *, num_steps: int, every: int = 1) -> None:
    strategy = SimpleNamespace(root_device=module.device)
    trainer: Any = SimpleNamespace(log_every_n_steps=every, strategy=strategy)
    batch: Any = SimpleNamespace(tokens=SimpleNamespace(num_tokens=100), num_queries=4)
    for index in range(num_steps):
        callback.on_train_batch_start()
        callback.on_train_batch_end(trainer, module, None, batch, index)


def test_rates_are_of_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(100))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(now)))  # a step takes a second
    module = Module("cpu")
    train(Throughput(), module, num_steps=4, every=2)
    assert module.logged == [{"perf/tokens_per_s": 100.0, "perf/queries_per_s": 4.0}] * 2


def test_the_peak_is_reset_after_the_first_interval_and_never_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    peaks, resets = iter([9, 5, 7]), []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: next(peaks) * GIB)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", resets.append)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 10 * GIB)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (30 * GIB, 40 * GIB))
    module = Module("cuda")
    train(Throughput(), module, num_steps=3)
    assert [values["perf/peak_memory_gib"] for values in module.logged] == [9.0, 5.0, 7.0]
    assert [values["perf/gpu_memory_share"] for values in module.logged] == [0.25] * 3
    assert resets == [torch.device("cuda")]
