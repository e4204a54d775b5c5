"""Weights, gradients and optimizer states: bytes of a parameter under each strategy."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from helpers.models import tiny_qwen
from quarry.models.adapters.full import FullFineTuning
from quarry.models.adapters.lora import LoRA
from quarry.models.memory import (
    Spread,
    StateBytes,
    free_device_bytes,
    memory_need,
    num_weights,
    state_bytes,
)


def of_one(*, itemsize: int = 4, spread: Spread | None = None) -> StateBytes:
    """Of 1,000 trained parameters."""
    return state_bytes(
        num_frozen=0,
        num_trained=1000,
        frozen_itemsize=4,
        trained_itemsize=itemsize,
        spread=spread or Spread(),
    )


def zero(
    stage: int, *, number: int = 4, is_chunked: bool = False, offloads: bool = False
) -> Spread:
    return Spread.of_zero(
        stage=stage,
        world_size=4,
        is_chunked=is_chunked,
        offloads_parameters=offloads and stage == 3,
        offloads_optimizer=offloads,
    )


def test_one_process_and_ddp() -> None:
    assert of_one().total == 16 * 1000
    assert of_one(itemsize=2).total == 8 * 1000, "AdamW's states are of the dtype of the weights"
    assert of_one(spread=zero(0)) == of_one()


@pytest.mark.parametrize(("stage", "total"), [(1, 8 + 12 / 4), (2, 4 + 16 / 4), (3, 20 / 4)])
def test_shards_as_the_page_about_processes_has_them(stage: int, total: float) -> None:
    assert of_one(spread=zero(stage)).total == total * 1000


def test_gradients_stay_whole_with_chunks_and_go_to_an_offloaded_optimizer() -> None:
    assert zero(3, is_chunked=True).gradients == 1
    assert zero(3, offloads=True).gradients == math.inf
    assert zero(1, offloads=True).gradients == math.inf
    assert of_one(spread=zero(3, offloads=True)).total == 0
    assert of_one(spread=zero(2, offloads=True)).total == 4 * 1000


def test_an_adapter_counts_and_its_backbone_stays_frozen() -> None:
    config = tiny_qwen().config
    number = num_weights(tiny_qwen())
    lora = LoRA(r=4, alpha=8, dropout=0, target_modules=["q_proj"])
    frozen = memory_need(config, dtype=torch.bfloat16)
    assert (frozen.num_parameters, frozen.num_bytes) == (number, 2 * number)
    beside = memory_need(config, dtype=torch.bfloat16, trained_part=lora.trained_part)
    assert beside.num_bytes == 2 * number + 16 * 2 * 4 * (32 + 32)
    every = memory_need(config, dtype=torch.float32, trained_part=FullFineTuning().trained_part)
    assert every.num_bytes == 16 * number


GIB = 2**30


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes torch see a GPU of 80 GiB that is used so (GiB)."""

    def use(
        *, others: float = 0, reserved: float = 0, allocated: float = 0, fraction: float = 1
    ) -> None:
        numbers = {
            "mem_get_info": (int((80 - others - reserved) * GIB), 80 * GIB),
            "memory_reserved": int(reserved * GIB),
            "memory_allocated": int(allocated * GIB),
            "get_per_process_memory_fraction": fraction,
        }
        for name, value in numbers.items():
            monkeypatch.setattr(torch.cuda, name, lambda device=None, value=value: value)

    return use


@pytest.mark.parametrize(
    ("used", "free"),
    [
        ({}, 80),
        ({"others": 40}, 40),
        ({"reserved": 10, "allocated": 4}, 76),  # what torch holds and does not use is free
        ({"others": 40, "reserved": 10, "allocated": 4}, 36),
        ({"fraction": 0.5}, 40),
        ({"fraction": 0.5, "reserved": 10, "allocated": 4}, 36),
        ({"fraction": 0.5, "others": 60}, 20),
        ({"fraction": 0.1, "reserved": 12, "allocated": 12}, 0),  # the limit came later
    ],
)
def test_free_bytes_of_a_gpu(used: dict[str, float], free: float, gpu: Callable[..., None]) -> None:
    gpu(**used)
    assert free_device_bytes(torch.device("cuda", 0)) == free * GIB
    assert free_device_bytes() == free * GIB


def test_each_gpu_is_asked_for_itself(
    gpu: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu()
    sizes = {0: 10 * GIB, 1: 20 * GIB}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (sizes[device.index], 80 * GIB))
    assert [free_device_bytes(torch.device("cuda", number)) for number in sizes] == [
        10 * GIB,
        20 * GIB,
    ]
