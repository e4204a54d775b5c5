"""A plan: for a machine that need not be here, and refused where it cannot fit."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from omegaconf import DictConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "config"))
from configurations import composed, opened

from helpers.models import tiny_folder
from quarry.assembly.preflight import command_with
from quarry.errors import UserError
from quarry.planning.plan_task import plan

SEVEN = ("model=qwen-coder", "data=msmarco", "benchmark=none")
PLAIN = ("model.gradient_checkpointing=false", "data.grad_cache_chunk_tokens=null")
STATED: dict[str, Any] = {"num_examples": 128_000, "tokens_per_query": 1250}


@pytest.fixture(scope="module", autouse=True)
def _conf() -> Iterator[None]:
    with opened():
        yield


def shown(*paragraphs: str, result_line: str) -> None:
    print(*paragraphs, result_line)


@pytest.fixture(autouse=True)
def _away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No hub, nothing in its cache; no result lines at the end of the tests."""
    monkeypatch.setattr("quarry.planning.plan_task.show", shown)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def planned(config: DictConfig, *, file: Path | None = None, **more: Any) -> dict[str, float]:
    settings: dict[str, Any] = {
        "card": None, "gpu_memory_gib": 79, "disk_gib": None, "num_examples": None,
        "tokens_per_query": None, "num_jobs_at_once": 1,
        "tokens_per_s": None, "json": None if file is None else str(file),
    }  # fmt: skip
    return plan(config, **(settings | more))


def seven(*overrides: str) -> DictConfig:
    return composed("train", "task=plan", *SEVEN, *overrides)


def test_a_day_on_eight_gpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = seven("trainer.devices=8", "loss.contrastive_batch_size=32")
    found = planned(config, file=tmp_path / "plan.json", tokens_per_s=10_000, **STATED)
    made = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    assert made["refusal"] is None
    assert (made["fits_memory"], made["fits_disk"]) == (True, True)
    assert (made["precision"], made["strategy"]) == ("bf16-mixed", "ddp")
    assert made["model"]["num_trained"] == 40_370_176
    assert made["is_compiled"]
    memory = made["memory_bytes_per_process"]
    assert memory["weights"] == 2 * 7_070_619_136 + 4 * 40_370_176
    assert memory["total"] == pytest.approx(found["plan/memory_gib"] * 2**30)
    assert made["workload"]["tokens_of_one_process_at_most"] == 32 * 1250 / 8
    assert (found["plan/num_steps"], found["plan/num_tokens"]) == (1000, 128_000 * 1250)
    assert found["plan/hours"] == pytest.approx(128_000 * 1250 / (8 * 10_000) / 3600)
    assert made["device_hours"] == pytest.approx(8 * found["plan/hours"])
    text = capsys.readouterr().out
    assert "Qwen/Qwen2.5-Coder-7B: 7.07e9 parameters (its published shape" in text
    assert "if 8 devices are 8 times as fast as one" in text
    assert "1,000  of 128 queries each" in text


@pytest.mark.parametrize(("pooling", "is_said"), [("last_token", True), ("mean", False)])
def test_evaluations_say_that_a_shared_prefix_is_not_counted_here(
    pooling: str, is_said: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = composed(
        "train", "task=plan", "experiment=sft_msmarco", "prompt=promptreps",
        f"model/pooling={pooling}",
    )  # fmt: skip
    planned(config, file=tmp_path / "plan.json", card="h200", gpu_memory_gib=None, **STATED)
    made = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))["evaluations"]
    assert made["num_computed_tokens"] == made["num_tokens"]
    assert made["prefix_tokens"] == (None if is_said else {"query": 0, "document": 0})
    assert ("a prefix that texts share is not taken off" in capsys.readouterr().out) == is_said


def test_what_cannot_fit_is_shown_written_and_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "plan.json"
    with pytest.raises(UserError) as caught:
        planned(seven(*PLAIN), file=file, **STATED)
    first, heading, *commands = str(caught.value).splitlines()
    assert "A process would take" in first
    assert "(GPUs of 79 GiB, as stated)" in first
    assert heading == "What would run:"
    proposal = commands[0].strip().partition("   # ")[0].split()
    assert [each.partition("=")[0] for each in proposal] == [
        "model.gradient_checkpointing", "data.grad_cache_chunk_tokens",
    ]  # fmt: skip
    assert any(line.strip().startswith("model.size=tiny") for line in commands)
    assert "does not fit" in capsys.readouterr().out
    assert json.loads(file.read_text(encoding="utf-8"))["refusal"] == str(caught.value)
    # the first proposal is true
    assert planned(seven(*proposal), **STATED)["plan/share_of_memory"] < 0.92


def test_a_bound_says_that_it_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"state task\.tokens_per_query=N if yours are shorter"):
        planned(seven(*PLAIN))
    assert f"at most {32 + 16 * 156:,}" in capsys.readouterr().out


def test_the_largest_size_that_fits_is_proposed() -> None:
    config = seven(*PLAIN, "data.global_batch_size=16")
    with pytest.raises(UserError, match=r"model\.size=3B   # the largest that fits as it is"):
        planned(config, **STATED)


RECIPE: dict[str, Any] = {"num_examples": 491_007, "tokens_per_query": 1259}


@pytest.mark.parametrize(
    ("gib", "checkpointing", "most_hours"),
    [(139, "selective", 9.5), (80, "selective", 12), (48, True, 13), (40, True, 13),
     (24, None, 16)],
)  # fmt: skip
def test_the_recipe_fits_every_card_as_it_is_configured(
    gib: float, checkpointing: bool | str | None, most_hours: float, tmp_path: Path
) -> None:
    config = composed(
        "train", "task=plan", "experiment=sft_msmarco", "model=qwen-instruct", "benchmark=none"
    )
    found = planned(config, file=tmp_path / "plan.json", gpu_memory_gib=gib, card="h200", **RECIPE)
    made = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    print(made["gradient_checkpointing"], made["grad_cache_chunk_tokens"], found)
    assert made["is_chosen"]
    assert found["plan/share_of_memory"] <= 0.92
    assert found["plan/hours"] <= most_hours
    if checkpointing is not None:
        assert made["gradient_checkpointing"] == checkpointing


def test_the_choice_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    planned(seven(), **STATED)
    shown = capsys.readouterr().out
    assert "auto: model.gradient_checkpointing=" in shown
    rows = shown.partition("What fits, the fastest first\n")[2].splitlines()[:4]
    assert sum("chunks" in row and "GiB" in row for row in rows) >= 3, rows


def test_nothing_fits_and_the_thriftiest_is_shown() -> None:
    with pytest.raises(UserError, match=r"A process would take .* it would have 12\.0 GiB"):
        planned(seven(), gpu_memory_gib=12, **STATED)


@pytest.mark.parametrize("strategy", ["auto", "ddp", "zero1", "zero2", "zero3"])
@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_every_strategy_on_devices_that_are_not_here(strategy: str, adapter: str) -> None:
    config = seven(
        f"strategy={strategy}", f"model/adapter={adapter}", "trainer.devices=8",
        "trainer.num_nodes=4", "model.gradient_checkpointing=true",
    )  # fmt: skip
    found = planned(config, gpu_memory_gib=500, **STATED)
    assert 5 < found["plan/memory_gib"] < 250


def test_offloading_is_planned_without_a_gpu_here(tmp_path: Path) -> None:
    config = seven(
        "strategy=zero3_offload", "model/adapter=none", "trainer.devices=2",
        "trainer.precision=bf16-true", "model.gradient_checkpointing=true",
        "data.grad_cache_chunk_tokens=8192",
    )  # fmt: skip
    planned(config, file=tmp_path / "plan.json", **STATED)
    made = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    memory = made["memory_bytes_per_process"]
    assert (memory["weights"], memory["optimizer"]) == (0, 0)
    # of both processes: weights in half precision, and the optimizer's three numbers in fp32
    assert made["host_bytes_per_node"] == pytest.approx(7_070_619_136 * (2 + 12))
    assert made["strategy"] == "zero3_offload"


def test_more_devices_than_this_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert planned(seven("trainer.devices=64", "trainer.num_nodes=1"), **STATED)


def test_other_rules_hold() -> None:
    with pytest.raises(UserError, match="trainer.devices=many: not a number of devices"):
        planned(seven("trainer.devices=many"), **STATED)
    with pytest.raises(UserError, match="ranks share a contrastive batch"):
        planned(seven("trainer.devices=8", "data.global_batch_size=4"), **STATED)


def test_a_disk_that_is_too_small() -> None:
    config = seven("data.grad_cache_chunk_tokens=8192")
    with pytest.raises(UserError, match=r"run directory would take 1\.1 GiB, and 1\.0 GiB"):
        planned(config, disk_gib=1, **STATED)


def test_without_a_gpu_the_plan_is_for_the_cpu(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    config = composed(
        "train", "task=plan", "model=local", f"model.path={tiny_folder(tmp_path / 'model')}",
        "benchmark=none", f"paths.runs_dir={tmp_path}/runs",
    )  # fmt: skip
    file = tmp_path / "plan.json"
    planned(config, file=file, gpu_memory_gib=None, num_examples=1280, tokens_per_query=20)
    made = json.loads(file.read_text(encoding="utf-8"))
    assert not made["machine"]["is_gpu"]
    assert (made["precision"], made["model"]["dtype"]) == ("32-true", "float32")
    assert made["machine"]["disk_bytes"] > 0
    assert made["disk_bytes"]["download"] == 0
    assert made["hours"] is None
    assert not (tmp_path / "runs").exists()
    with pytest.raises(UserError, match=r"task\.gpu_memory_gib=80   # a plan for GPUs"):
        planned(config, gpu_memory_gib=None, num_examples=1280, tokens_per_query=1e9)


@pytest.mark.parametrize("key", ["gpu_memory_gib", "disk_gib", "tokens_per_s"])
def test_sizes_that_are_none(key: str) -> None:
    with pytest.raises(UserError, match=rf"task\.{key}=-1 must be above 0"):
        planned(seven(), **{key: -1})


def test_gpus_for_a_run_on_the_cpu() -> None:
    with pytest.raises(UserError, match=r"no effect with trainer\.accelerator=cpu"):
        planned(seven("trainer.accelerator=cpu"))


def test_a_command_with_several_overrides() -> None:
    assert command_with("strategy=zero3", "trainer.devices=8") == "strategy=zero3 trainer.devices=8"


SFT = (
    "task=plan",
    "experiment=sft_msmarco",
    "model=qwen-coder",
    "strategy=ddp",
    "trainer.devices=8",
)


def test_hours_are_those_of_training_and_evaluations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "plan.json"
    found = planned(composed("train", *SFT), file=file, card="h200", gpu_memory_gib=None, **STATED)
    made = json.loads(file.read_text(encoding="utf-8"))
    assert made["evaluations"]["number"] == 2
    assert made["evaluation_hours"] > 1
    assert found["plan/hours"] == made["hours"]
    assert made["hours"] == pytest.approx(made["training_hours"] + made["evaluation_hours"])
    assert made["device_hours"] == pytest.approx(8 * made["hours"])
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert f"at least {made['hours']:.3g} h" in rows["total"]
    assert f"at least {made['evaluation_hours']:.3g} h" in rows["evaluations"]
    # eight ranks share the embeddings of the passages
    assert made["host"]["corpus"] == 8_841_823 * 3584 * 4
    assert found["plan/host_gib"] > 118


def test_an_unknown_time_of_evaluations_makes_the_total_a_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "plan.json"
    found = planned(composed("train", *SFT), file=file, tokens_per_s=10_000, **STATED)
    made = json.loads(file.read_text(encoding="utf-8"))
    assert made["evaluation_hours"] is None
    assert (found["plan/hours"], made["is_at_least"]) == (made["training_hours"], True)
    text = capsys.readouterr().out
    assert f"at least {made['hours']:.3g} h" in text
    assert "hours unknown for this card: state task.card=NAME" in text


def test_jobs_at_once_share_the_memory_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.cuda.is_available():
        pytest.skip("this is for a CPU")
    here = psutil.virtual_memory()._replace(available=4 * 2**30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: here)
    config = composed(
        "train", "task=plan", "model=local", f"model.path={tiny_folder(tmp_path / 'model')}",
        "benchmark=msmarco_dl", f"paths.runs_dir={tmp_path}/runs",
        "evaluation.corpus_on_disk=false",
    )  # fmt: skip
    stated: dict[str, Any] = {
        "gpu_memory_gib": None, "num_examples": 1280, "tokens_per_query": 20
    }  # fmt: skip
    assert planned(config, **stated)["plan/host_gib"] == pytest.approx(1.9, abs=0.1)
    with pytest.raises(UserError) as caught:
        planned(config, num_jobs_at_once=3, **stated)
    text = str(caught.value)
    assert "3 jobs at once would take 5.7 GiB of host memory" in text
    assert "benchmark=none   # no evaluation; python eval.py model.path=RUN_DIR afterwards" in text
    assert "task.num_jobs_at_once=2   # fewer jobs at once" in text
