"""Devices, strategies and precisions that do not go together are refused by name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pytorch_lightning.strategies import DDPStrategy

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "config"))
from configurations import composed, opened

from quarry.config.instantiate import build
from quarry.config.validation import validate
from quarry.config.world_size import world_size, zero_stage
from quarry.errors import UserError


@pytest.fixture(scope="module", autouse=True)
def _conf() -> Iterator[None]:
    with opened():
        yield


def refusal(*overrides: str) -> str:
    with pytest.raises(UserError) as info:
        validate(composed("train", "benchmark=none", *overrides), primary="train")
    return str(info.value)


@pytest.mark.parametrize("strategy", ["auto", "ddp", "zero1", "zero2", "zero3"])
def test_every_strategy_passes_with_two_processes(strategy: str) -> None:
    config = composed("train", "benchmark=none", f"strategy={strategy}", "trainer.devices=2")
    validate(config, primary="train")
    assert world_size(config) == 2
    assert zero_stage(config) == (int(strategy[-1]) if strategy.startswith("zero") else 0)


def test_nodes_count() -> None:
    config = composed("train", "trainer.devices=4", "trainer.num_nodes=3")
    assert world_size(config) == 12


def test_fewer_queries_than_processes() -> None:
    message = refusal("trainer.devices=8", "data.global_batch_size=4")
    assert "8 ranks share a contrastive batch, and it has 4 queries" in message
    message = refusal("trainer.devices=8", "loss.contrastive_batch_size=4")
    assert "has 4 queries" in message


def test_a_contrastive_batch_that_does_not_divide_is_no_mistake() -> None:
    config = composed("train", "benchmark=none", "trainer.devices=3")
    validate(config, primary="train")  # 128 queries


def test_more_devices_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    message = refusal("trainer.devices=4", "strategy=ddp")
    assert "trainer.devices=4: this machine has 2. Fix: trainer.devices=2" in message
    message = refusal("trainer.devices=[0,2]", "strategy=ddp")
    assert "this machine has no GPU [2] (0 to 1)" in message


def test_torchrun_with_another_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    assert "torchrun started 4" in refusal("trainer.devices=2")


def test_deepspeeds_launcher_with_another_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert "the launcher (WORLD_SIZE) started 4" in refusal("trainer.devices=2")
    monkeypatch.setenv("WORLD_SIZE", "1")  # as a container's only process: Lightning starts more
    validate(composed("train", "benchmark=none", "trainer.devices=2"), primary="train")


def test_slurm_with_another_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "8")
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "8")
    monkeypatch.setenv("SLURM_JOB_NAME", "study")
    assert "the world size is 1, and SLURM started 8 ranks" in refusal("trainer.devices=1")


@pytest.mark.parametrize("devices", ["-1", "[0,1]"])
def test_gpus_where_there_are_none(monkeypatch: pytest.MonkeyPatch, devices: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert ": these are GPUs, and this run has none" in refusal(f"trainer.devices={devices}")
    message = refusal(f"trainer.devices={devices}", "trainer.accelerator=gpu")
    assert "trainer.accelerator=gpu: this machine has no GPU" in message


def test_no_nodes() -> None:
    assert "trainer.num_nodes=0: not a number of nodes" in refusal("trainer.num_nodes=0")


@pytest.mark.parametrize("devices", ["auto", "-1", "2", "[0,1]"])
def test_several_gpus_get_our_ddp_however_they_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, devices: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    config = composed("train", "benchmark=none", f"trainer.devices={devices}")
    validate(config, primary="train")
    assert world_size(config) == 2
    strategy = build(config.trainer.strategy)
    assert isinstance(strategy, DDPStrategy)
    assert strategy.process_group_backend == "cpu:gloo,cuda:nccl"


@pytest.mark.parametrize("strategy", ["zero1", "zero3"])
def test_precisions_that_zero_does_not_have(strategy: str) -> None:
    message = refusal(f"strategy={strategy}", "trainer.precision=16-mixed")
    assert "trainer.precision=16-mixed: not supported under ZeRO" in message


def test_weights_in_half_precision_without_zero() -> None:
    assert "model.dtype=bfloat16" in refusal("trainer.precision=bf16-true")


def test_all_that_does_not_go_with_shards_at_once() -> None:
    message = refusal(
        "strategy=zero3",
        "model.linear_precision=fp8",
        "model.compile=true",
        "trainer.precision=bf16-true",
    )
    assert "model.linear_precision=fp8: not supported under ZeRO" in message
    assert "model.compile=true: not supported with strategy=zero3" in message
    assert "model.dtype=float32: has no effect" in message


def test_offloading_without_a_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert "no effect without a GPU" in refusal("strategy=zero3_offload")


def test_offloading_weights_that_are_whole() -> None:
    message = refusal("strategy=zero2", "+trainer.strategy.offload_parameters=true")
    assert "Fix: strategy=zero3_offload" in message


def test_offloading_with_another_optimizer() -> None:
    message = refusal("strategy=zero3_offload", "optimizer._target_=torch.optim.Adam")
    assert "Fix: optimizer=adamw" in message


def test_many_more_ranks_than_cores_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1}, raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    message = refusal("trainer.devices=64")
    assert "trainer.devices=64: 64 ranks, each with a model of its own, would share 2" in message
    assert "Fix: trainer.devices=2" in message
    validate(composed("train", "benchmark=none", "trainer.devices=8"), primary="train")
