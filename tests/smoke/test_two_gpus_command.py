"""`bench/two_gpus.py` end to end, on two processes of a CPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.commands import Result, run_command


def test_a_stage_that_there_is_not(command: Callable[..., Result], tmp_path: Path) -> None:
    result = command("bench/two_gpus.py", "--only", "three", "--results", str(tmp_path))
    assert result.code == 1
    assert "three: no such stage; there are one, ddp, zero2, whole, killed" in result.err


def test_nothing_begins_without_time(command: Callable[..., Result], tmp_path: Path) -> None:
    result = command(
        "bench/two_gpus.py", "--scale", "tiny", "--budget-s", "0", "--results", str(tmp_path)
    )
    assert result.code == 1
    assert "not begun: the budget of time was used" in result.err


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_speeds_and_survivors(environment: dict[str, str], tmp_path: Path) -> None:
    stages = "one,ddp,whole,killed,resumed,zero3_small"
    result = run_command(
        "bench/two_gpus.py", "--scale", "tiny", "--only", stages, "--results", str(tmp_path),
        environment=environment, timeout_s=800,
    )  # fmt: skip
    assert result.code == 0, result.err
    found = json.loads((tmp_path / "two_gpus.json").read_text(encoding="utf-8"))
    for name in ("lora_one", "lora_ddp", "full_small_one", "full_small"):
        assert found["jobs"][name]["tokens_per_s"] > 0
    for strategy in ("ddp", "zero3"):
        survived = found["survival"][strategy]
        assert survived["is_model_equal"]
        assert survived["largest_loss_difference"] == 0
        assert survived["scores"] == survived["scores_resumed"]
    assert found["agreement"]["ddp"]["largest_loss_difference"] < 1e-4
