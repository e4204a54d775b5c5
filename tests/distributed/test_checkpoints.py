"""Several processes stop together, keep what is needed and go on to the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.preloaded import PreloadedPython
from helpers.processes import run_processes

WORKER = Path(__file__).with_name("checkpoints_worker.py")
STRATEGIES = ["ddp", "zero1", "zero2", "zero3"]
SPOILT = [
    ("ddp", "loss"), ("ddp", "gradient"), ("zero2", "gradient"), ("zero3", "loss"),
    ("zero3", "gradient"),
]  # fmt: skip
"""A loss is looked at by the same lines under each strategy; ZeRO 1 has the norm of ZeRO 2."""
NUM_LORA_TENSORS = 12  # A and B of three linear layers in each of two transformer layers
NUM_PROJECTION_TENSORS = 3  # two weights and a bias

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def results(
    preloaded_python: PreloadedPython, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("checkpoints")
    run_processes(preloaded_python, WORKER, str(folder), num_processes=2, timeout_s=240)
    return [torch.load(folder / f"result.{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_signal_to_one_process_stops_all_after_the_same_step(
    strategy: str, results: list[dict[str, Any]]
) -> None:
    messages = {found[strategy]["message"] for found in results}
    assert len(messages) == 1
    assert messages.pop().startswith("SIGTERM after step 1.")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_resumed_equals_uninterrupted_bit_for_bit(
    strategy: str, results: list[dict[str, Any]]
) -> None:
    """LoRA with dropout, on the fast path, and layers after the pooling."""
    whole, resumed = (results[0][strategy][name] for name in ("whole", "resumed"))
    assert whole.keys() == resumed.keys()
    assert len(whole) == NUM_LORA_TENSORS + NUM_PROJECTION_TENSORS
    calls = results[0][strategy]["calls"]
    assert calls["peft"] == 0
    assert calls["fast"] > 0
    for name, weight in whole.items():
        assert torch.equal(weight, resumed[name]), name


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_checkpoint_holds_what_is_trained_alone_and_nothing_else_is_left(
    strategy: str, results: list[dict[str, Any]]
) -> None:
    found = results[0][strategy]
    assert found["stored"] == {name: tuple(w.shape) for name, w in found["whole"].items()}
    assert all("lora_" in name or ".projections." in name for name in found["stored"])
    is_folder = strategy != "ddp"
    names = ["stopped.ckpt", "whole.ckpt"]
    shards = ["stopped.ckpt.step-3", "whole.ckpt.step-3"] if is_folder else []
    assert found["files"] == sorted(names + shards)


@pytest.mark.parametrize(("strategy", "what"), SPOILT)
def test_what_is_no_number_in_one_process_stops_all_before_the_step_is_kept(
    strategy: str, what: str, results: list[dict[str, Any]]
) -> None:
    messages = {found[f"{strategy} {what}"][0] for found in results}
    assert len(messages) == 1
    message = messages.pop()
    assert "at step 3: training stopped, without that optimizer step" in message
    assert message.startswith("The loss is" if what == "loss" else "The gradient norm is")


@pytest.mark.parametrize(("strategy", "what"), SPOILT)
def test_all_fall_back_to_the_last_state_whose_next_loss_was_finite(
    strategy: str, what: str, results: list[dict[str, Any]]
) -> None:
    for message, left in (found[f"{strategy} {what}"] for found in results):
        assert "The last good state, of step 1, is in" in message
        assert left == {"step": 1, "num_files": 1 if strategy == "ddp" else 2}


def test_no_batch_waits_for_the_first_process_to_say_whether_it_was_told_to_end(
    results: list[dict[str, Any]],
) -> None:
    assert [found["broadcasts"] for found in results] == [0, 0]


def test_what_the_first_process_fails_at_all_fail_at(results: list[dict[str, Any]]) -> None:
    assert results[0]["failures"] == ["SharedError: users", "OSError: disk full"]
    assert results[1]["failures"] == [
        "SharedError: users",
        "RuntimeError: On rank 0: disk full",
    ]
