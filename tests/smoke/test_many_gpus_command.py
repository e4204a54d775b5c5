"""`bench/many_gpus.py` end to end, on two ranks of a CPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from helpers.commands import Result, run_command


def parts_of(results: Path) -> dict[str, Any]:
    (file,) = results.glob("many_gpus_*_tiny.json")
    parts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["parts"]
    return parts


def test_a_row_that_there_is_not(command: Callable[..., Result], tmp_path: Path) -> None:
    result = command("bench/many_gpus.py", "--only", "three", "--results", str(tmp_path))
    assert result.code == 1
    assert "three: no such row; there are lora_ddp, encoding, hangs, survival" in result.err


def test_nothing_begins_without_time_or_gpus(
    command: Callable[..., Result], tmp_path: Path
) -> None:
    result = command(
        "bench/many_gpus.py", "--scale", "tiny", "--budget-s", "0", "--devices", "2,4",
        "--only", "encoding,sweep", "--results", str(tmp_path),
    )  # fmt: skip
    assert result.code == 0, result.err
    parts = parts_of(tmp_path)
    assert "budget of time was used" in parts["encoding"]["2"]["not_run"]
    assert "needs 4 GPUs" in parts["encoding"]["4"]["not_run"]
    assert parts["sweep"]["jobs"]["not_run"] == "needs a CUDA device"


@pytest.mark.bench
@pytest.mark.timeout(600)
def test_rates_and_rankings(environment: dict[str, str], tmp_path: Path) -> None:
    parts = measured("lora_ddp,encoding,full_zero3", environment, tmp_path)
    for part in (*parts["lora_ddp"].values(), parts["full_zero3"]["2"]):
        assert part["tokens_per_s"] > 0
        assert part["save_s"] > 0
    equal = parts["lora_ddp"]["1_equal_to_2"]["command"]
    assert "model.gradient_checkpointing=false data.grad_cache_chunk_tokens=null" in equal
    assert parts["encoding"]["1"]["rankings"]
    assert parts["encoding"]["1"]["rankings"] == parts["encoding"]["2"]["rankings"]


@pytest.mark.bench
@pytest.mark.timeout(600)
def test_nothing_hangs_and_killed_runs_are_resumed(
    environment: dict[str, str], tmp_path: Path
) -> None:
    parts = measured("hangs,survival,survival_refreshing", environment, tmp_path)
    assert (parts["hangs"]["2"]["num_hangs"], parts["hangs"]["2"]["num_failed"]) == (0, 0)
    for row, strategy in product(("survival", "survival_refreshing"), ("ddp", "zero3")):
        survived = parts[row][strategy]
        assert survived["is_model_equal"]
        assert survived["largest_loss_difference"] == 0
        assert survived["scores"] == survived["scores_resumed"]


def measured(names: str, environment: dict[str, str], results: Path) -> dict[str, Any]:
    """Run these rows in small and return their parts."""
    result = run_command(
        "bench/many_gpus.py", "--scale", "tiny", "--only", names, "--results", str(results),
        environment=environment, timeout_s=580,
    )  # fmt: skip
    assert result.code == 0, result.err
    return parts_of(results)
