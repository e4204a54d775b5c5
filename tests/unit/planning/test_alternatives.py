"""What is proposed fits, the cheapest first, and says all that has to be said."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "config"))
from configurations import composed, opened

from helpers.plans import GIB, LORA, setup
from quarry.planning.alternatives import alternatives, option_buffers
from quarry.planning.machine import Machine
from quarry.planning.zero_buffers import ZeroBuffers


def machine(gib: float, *, is_gpu: bool = True) -> Machine:
    return Machine(name="a card", num_bytes=int(gib * GIB), is_gpu=is_gpu, disk_bytes=None)


def test_time_for_memory_comes_before_more_devices() -> None:
    found = alternatives(setup(), machine(79), zero_overrides=())
    first = found[0].overrides
    assert first == (
        "model.gradient_checkpointing=selective",
        "data.grad_cache_chunk_tokens=19968",
    ), "of 20,480 tokens 512 go through twice, and what is element-wise"
    assert [each.overrides for each in found[1:]] == [
        ("trainer.devices=2",),
        ("trainer.devices=4",),
    ]
    assert all(each.memory.total <= 79 * GIB for each in found)


def test_chunks_where_checkpointing_is_not_enough() -> None:
    many = replace(setup().contrast, num_queries=1024)
    first = alternatives(setup(contrast=many), machine(79), zero_overrides=())[0]
    checkpointing, chunks = first.overrides
    assert checkpointing == "model.gradient_checkpointing=selective", "less than layers twice"
    assert 15_000 < int(chunks.removeprefix("data.grad_cache_chunk_tokens=")) < 20_000
    tight = alternatives(setup(), machine(16.2), zero_overrides=())[0]
    assert tight.overrides[1].startswith("data.grad_cache_chunk_tokens=")
    assert tight.memory.total <= 0.92 * 16.2 * GIB


def test_a_chunk_is_no_shorter_than_a_text() -> None:
    contrast = replace(setup().contrast, longest_text=8000)
    found = alternatives(setup(contrast=contrast), machine(16.2), zero_overrides=())
    chunks = [o for each in found for o in each.overrides if "chunk" in o]
    assert all(int(chunk.split("=")[1]) >= 8000 for chunk in chunks)


def test_all_weights_go_into_shards() -> None:
    every = setup(
        num_frozen=0, num_trained=7_070_619_136, frozen_itemsize=4, world_size=8,
        kept=replace(LORA, trains_backbone=True, state_itemsize=4),
    )  # fmt: skip
    beside = ("trainer.precision=bf16-true",)
    found = alternatives(every, machine(79), zero_overrides=beside)
    assert found[0].overrides == ("strategy=zero2", *beside)
    assert found[1].overrides == ("strategy=zero3", *beside)
    assert found[1].memory.weights == 2 * every.num_trained // 8
    assert found[2].overrides[0] == "trainer.devices=8"
    assert found[2].overrides[1] == "trainer.num_nodes=2"


def test_no_more_devices_than_queries_and_none_on_a_cpu() -> None:
    contrast = replace(setup().contrast, num_queries=3, tokens_per_query=8000)
    found = alternatives(setup(contrast=contrast), machine(79), zero_overrides=())
    numbers = {o for each in found for o in each.overrides if o.startswith("trainer.devices")}
    assert numbers == {"trainer.devices=2"}
    on_cpu = alternatives(setup(), machine(30, is_gpu=False), zero_overrides=())
    assert [each.overrides for each in on_cpu] == [("model.gradient_checkpointing=true",)]


def test_nothing_fits_nowhere() -> None:
    assert alternatives(setup(), machine(0.1), zero_overrides=()) == []


@pytest.mark.parametrize("name", ["zero2", "zero3"])
def test_settings_are_those_of_the_options(name: str) -> None:
    with opened():
        config = composed("train", f"strategy={name}")
    assert ZeroBuffers.of(config.trainer.strategy) == option_buffers(name)
    assert option_buffers("zero3").max_live_parameters == 1_000_000_000
