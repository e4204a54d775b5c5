"""The parts of bench/many_gpus.py whose mistakes would be wrong numbers rather than failures."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from gpu_sweep import has_own_gpus
from many_gpus import numbers
from many_gpus_page import PAGE, SOURCE, with_tables
from many_gpus_rows import AUTO_ON_ONE, DEVICES, STRATEGIES, ManyGpusRows, equal_to
from many_gpus_table import FULL as FULL_ROWS
from many_gpus_table import tables
from measurements import FULL, Measurement, Part, Settings
from part_rules import NotMeasuredError, obstacle, side_by_side, stated
from processes import environment
from runs_compared import survival

BENCH = Path(__file__).resolve().parents[1] / "bench"
CHOSEN = {"model.gradient_checkpointing": "selective", "data.grad_cache_chunk_tokens": None}


def rows(devices: tuple[int, ...] = DEVICES, *, num_gpus: int = 8) -> dict[str, Measurement]:
    made = ManyGpusRows(scale=FULL, devices=devices, is_tiny=False, has_gpu=True, num_gpus=num_gpus)
    return {row.name: row for row in made.measurements()}


def trained(rate: float, *, run: int = 0, **more: Any) -> dict[str, Any]:
    return {"run": run, "tokens_per_s": rate, "peak_gib": 99.96, "save_s": 1.25, **more}


def content(**parts: dict[str, Any]) -> Any:
    return {"parts": parts, "runs": [{}, {}]}


def line(found: Any, *begin: str) -> str:
    start = f"| {' | '.join(begin)} |"
    return next(line for line in tables(found).splitlines() if line.startswith(start))


def test_every_row_of_the_page_is_measured() -> None:
    found = {name: {part.name for part in row.parts} for name, row in rows().items()}
    many = [str(number) for number in DEVICES[1:]]
    equal = [equal_to(number) for number in DEVICES[1:]]
    for strategy in STRATEGIES:
        one = {AUTO_ON_ONE} if strategy == "ddp" else set()
        assert found.pop(f"lora_{strategy}") == {*many, *equal, *one}
    for name, devices in FULL_ROWS.items():
        assert found.pop(name) == {str(number) for number in devices}
    assert found == {
        "encoding": {str(number) for number in DEVICES},
        "survival": set(STRATEGIES),
        "survival_refreshing": set(STRATEGIES),
        "hangs": {"2"},
        "sweep": {"jobs"},
    }


def test_parts_see_as_many_gpus_as_they_use_and_none_twice_under_a_clock() -> None:
    for row in rows().values():
        for group in side_by_side(row.parts):
            for part in group:
                assert (BENCH / part.script).exists()
                devices = [one for one in part.arguments if one.startswith("trainer.devices=")]
                if devices:
                    assert devices == [f"trainer.devices={len(part.gpus)}"]
            used = [gpu for part in group for gpu in part.gpus]
            assert len(used) == len(set(used)) or row.name.startswith("survival")
    on_one = side_by_side(rows((1, 2), num_gpus=2)["lora_ddp"].parts)[-1]
    assert [(part.name, part.gpus) for part in on_one] == [("1_equal_to_2", (0,)), ("1", (1,))]


def test_numbers_of_gpus() -> None:
    assert numbers("4,1,2,2") == (1, 2, 4)
    with pytest.raises(ValueError, match="--devices=0,2"):
        numbers("0,2")


def test_equal_settings_are_what_auto_chose_on_many() -> None:
    settings = Settings(part="2", in_one_pass=("loss.contrastive_batch_size=16",))
    part = Part(name="1_equal_to_2", script="", arguments=(), settings=settings)
    same = "model.gradient_checkpointing=selective"
    assert stated(part, {"2": {"chosen": CHOSEN}}) == [
        same, "data.grad_cache_chunk_tokens=null", "loss.contrastive_batch_size=16",
    ]  # fmt: skip
    in_chunks = CHOSEN | {"data.grad_cache_chunk_tokens": 9_984}
    assert stated(part, {"2": {"chosen": in_chunks}}) == [
        same, "data.grad_cache_chunk_tokens=9984",
    ]  # fmt: skip
    for known in ({}, {"2": {"chosen": CHOSEN, "not_run": "out of memory"}}):
        with pytest.raises(NotMeasuredError, match="auto"):
            stated(part, known)


@pytest.mark.parametrize("has_gpu", [True, False])
def test_gpus_that_are_not_there_are_said(has_gpu: bool) -> None:
    machine = {"has_gpu": has_gpu, "memory_gib": 139.8, "num_gpus": 2 if has_gpu else 0}
    runner: Any = SimpleNamespace(scale=SimpleNamespace(needs_gpu=False))
    row = rows()["encoding"]
    reasons = {part.name: obstacle(part, row, machine, runner) for part in row.parts}
    assert (reasons["1"], reasons["2"]) == (None, None)
    assert (reasons["4"] or "").startswith("needs 4 GPUs, ")


def test_gpus_are_numbered_within_those_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert environment(gpus=(1,))["CUDA_VISIBLE_DEVICES"] == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert environment(gpus=(1,))["CUDA_VISIBLE_DEVICES"] == "6"
    assert environment()["CUDA_VISIBLE_DEVICES"] == "4,6"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert environment(gpus=(0, 1))["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize(("rate", "shown"), [(19_000.0, "**1.90**"), (18_900.0, "1.89 ✗")])
def test_training_is_judged_against_equal_settings(rate: float, shown: str) -> None:
    parts = {
        "2": trained(rate, chosen=CHOSEN, commit="a" * 40),
        "1_equal_to_2": trained(10_000.0),
        "1": trained(8_000.0, run=1),
        "8": {"not_run": "needs 8 GPUs, this machine has 2"},
    }
    found = content(lora_ddp=parts)
    assert line(found, "LoRA, `ddp`", "2") == (
        f"| LoRA, `ddp` | 2 | {rate:,.0f} | {shown} | ≥ 1.9 | {rate / 8_000:.2f} † | 100.0 | 1.2 | "
        "checkpointing selective, no chunks | aaaaaaaaaaaa |"
    )
    assert "| not run: needs 8 GPUs, this machine has 2 |" in line(found, "LoRA, `ddp`", "8")
    assert "| not measured |" in line(found, "LoRA, `ddp`", "4")


def test_encoding_is_judged_and_its_rankings_compared() -> None:
    one = {"run": 0, "tokens_per_s": 100.0, "searching_s": 0.1, "rankings": {"a.trec": "0f"}}
    same = one | {"tokens_per_s": 195.0}
    other = one | {"tokens_per_s": 749.0, "rankings": {"a.trec": "1f"}}
    found = content(encoding={"1": one, "2": same, "8": other})
    assert "**1.95** | ≥ 1.95 | 0.10 | **those of one, byte" in line(found, "encoding", "2")
    assert "7.49 ✗ | ≥ 7.5 | 0.10 | others than those of one ✗" in line(found, "encoding", "8")


@pytest.mark.parametrize(
    ("runs", "hangs", "failed", "is_reached"),
    [(20, 0, 0, True), (19, 0, 0, False), (20, 1, 0, False), (20, 0, 1, False)],
)
def test_twenty_runs_without_a_hang(runs: int, hangs: int, failed: int, is_reached: bool) -> None:
    part = {"num_runs": runs, "num_hangs": hangs, "num_failed": failed}
    part |= {"run_s": [20.0, 30.0], "time_limit_s": 90.0}
    shown = f"{runs} runs, {hangs} hung, {failed} failed"
    wanted = f"**{shown}**" if is_reached else f"{shown} ✗"
    assert wanted in tables(content(hangs={"2": part}))


@pytest.mark.parametrize(
    ("gpus", "begins", "is_own"),
    [
        (("0", "1", "0", "1"), (0, 0, 10, 10), True),
        (("0", "1", "0", "1"), (0, 0, 9, 10), False),  # two on GPU 0 at a time
        (("0", "0", "0", "0"), (0, 10, 20, 30), False),  # the other one is not used
        (("0,1", "1", "0", "1"), (0, 10, 20, 30), False),
        (("", "1", "0", "1"), (0, 10, 20, 30), False),
    ],
)
def test_jobs_have_gpus_of_their_own(
    gpus: tuple[str, ...], begins: tuple[int, ...], is_own: bool
) -> None:
    jobs = [
        {"gpus": gpu, "begin": begin, "end": begin + 10}
        for gpu, begin in zip(gpus, begins, strict=True)
    ]
    assert has_own_gpus(jobs, num_gpus=2) is is_own


def test_the_page_has_the_tables_of_the_json() -> None:
    found = json.loads(SOURCE.read_text(encoding="utf-8"))
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_tables(page, found), "run: python bench/many_gpus_page.py"


def test_what_a_killed_run_lost_is_seen(tmp_path: Path) -> None:
    for name, change in (("whole", 0.0), ("resumed", 0.5)):
        (tmp_path / name / "model").mkdir(parents=True)
        losses = [(1, 3.0), (2, 2.0 + 9 * change), (3, 1.0 + change)]
        curve = {"losses": losses, "evaluations": [(0, 0.5)]}
        (tmp_path / name / "learning_curve.json").write_text(json.dumps(curve))
        weights = {"weight": torch.tensor([1.0, 2.0 - change])}
        save_file(weights, tmp_path / name / "model" / "model.safetensors")
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    found = survival(whole, resumed, first=2)
    assert found["num_updates_gone_on"] == 1
    assert found["largest_loss_difference"] == 0.5, "before the checkpoint nobody has gone on"
    assert (found["is_model_equal"], found["largest_weight_difference"]) == (False, 0.5)
    assert survival(whole, whole, first=2)["is_model_equal"]
    minings = {"minings": [{"step": 1}, {"step": 3}]}
    (whole / "refreshed_negatives.json").write_text(json.dumps(minings))
    assert survival(whole, whole, first=2)["negatives_mined_after"] == [1, 3]
    with pytest.raises(ValueError, match=r"mined after steps \[1, 3\] and \[\]"):
        survival(whole, resumed, first=2)
