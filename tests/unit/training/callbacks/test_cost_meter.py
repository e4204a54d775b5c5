"""What a run took is the sum of its parts, each counted once."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from quarry.distributed import world
from quarry.evaluation.retrieval_times import RetrievalTimes
from quarry.training.callbacks.cost_meter import CostMeter


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still unless a test moves it."""
    now = SimpleNamespace(s=1000.0)
    monkeypatch.setattr(time, "perf_counter", lambda: now.s)
    return now


def a_trainer(device: str = "cpu") -> Any:
    return SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)))


def train(meter: CostMeter, clock: SimpleNamespace, *, num_steps: int, num_tokens: int) -> None:
    """Steps of three seconds, a second apart."""
    trainer, module = a_trainer(), SimpleNamespace()
    meter.setup(trainer, module, "fit")
    batch: Any = SimpleNamespace(tokens=SimpleNamespace(num_tokens=num_tokens))
    for index in range(num_steps):
        clock.s += 1
        meter.on_train_batch_start(trainer, module, batch, index)
        clock.s += 3
        meter.on_before_optimizer_step(trainer, module, None)
        meter.on_train_batch_end(trainer, module, None, batch, index)


def test_only_time_in_steps_is_training(clock: SimpleNamespace) -> None:
    meter = CostMeter()
    train(meter, clock, num_steps=5, num_tokens=100)
    meter.on_fit_end(a_trainer(), None)  # type: ignore[arg-type]
    cost = meter.cost()
    assert (cost.training_s, cost.wall_hours) == (15.0, 20 / 3600)
    assert (cost.num_trained_tokens, cost.tokens_per_s) == (500, 500 / 15)
    assert (cost.device, cost.num_devices) == ("CPU", 1)
    assert (cost.device_hours, cost.gpu_hours) == (20 / 3600, 0.0)
    assert cost.peak_device_memory_gib is None
    assert 0.01 < cost.peak_host_memory_gib < 1024


def test_a_resumed_run_adds_up_what_led_to_its_checkpoint(clock: SimpleNamespace) -> None:
    first = CostMeter(times=RetrievalTimes(encoding_s=7.0, searching_s=2.0))
    train(first, clock, num_steps=4, num_tokens=100)
    saved = first.state_dict()
    train(first, clock, num_steps=2, num_tokens=100)  # lost with the process
    clock.s += 500  # nobody was there
    second = CostMeter(times=RetrievalTimes(searching_s=1.0))  # the baseline, once more
    second.load_state_dict(saved)
    train(second, clock, num_steps=3, num_tokens=10)
    cost = second.cost()
    assert (cost.training_s, cost.num_trained_tokens) == (21.0, 430)
    assert cost.wall_hours == pytest.approx((16 + 12) / 3600)
    assert (cost.encoding_s, cost.searching_s) == (7.0, 3.0)


def test_tokens_and_peaks_are_those_of_all_processes(
    clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 10**4 * 2**30
    monkeypatch.setattr(world, "size", lambda: 2)
    others = {int: 250, tuple: (3000, most)}  # tokens; bytes on the device and on the host
    monkeypatch.setattr(world, "gathered", lambda own: [own, others[type(own)]])
    meter = CostMeter()
    train(meter, clock, num_steps=2, num_tokens=100)
    assert meter.state_dict()["num_tokens"] == 450
    meter.on_fit_end(a_trainer(), None)  # type: ignore[arg-type]
    cost = meter.cost()
    assert (cost.num_devices, cost.num_trained_tokens) == (2, 450)
    assert cost.device_hours == pytest.approx(2 * cost.wall_hours)
    assert cost.peak_host_memory_gib == 10**4


def test_a_gpus_peak_survives_being_reset(
    clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks = iter([1, 9, 5, 4, 3, 3])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: next(peaks) * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    meter, module = CostMeter(), SimpleNamespace()
    trainer = a_trainer("cuda")
    meter.setup(trainer, module, "fit")
    batch: Any = SimpleNamespace(tokens=SimpleNamespace(num_tokens=1))
    meter.on_train_batch_start(trainer, module, batch, 0)
    meter.on_before_optimizer_step(trainer, module, None)
    clock.s += 3600
    meter.on_train_batch_end(trainer, module, None, batch, 0)
    meter.on_test_end(trainer, module)
    cost = meter.cost()
    assert cost.peak_device_memory_gib == 9.0
    assert (cost.device, cost.gpu_hours) == ("NVIDIA H200", 1.0)
