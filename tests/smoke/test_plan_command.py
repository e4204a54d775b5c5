"""`python train.py ... task=plan`: what it prints, and that what it proposes would run."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from helpers.commands import Result

PLAN = (
    "task=plan", "model=qwen-coder", "data=msmarco", "benchmark=none", "task.gpu_memory_gib=79",
    "task.num_examples=128000", "task.tokens_per_query=1250",
)  # fmt: skip


def test_a_refused_plan_names_commands_that_are_accepted(
    command: Callable[..., Result], environment: dict[str, str]
) -> None:
    runs = Path(environment["QUARRY_RUNS"])
    before = sorted(runs.rglob("*"))  # of other tests
    too_much = (
        "trainer.devices=8", "data.global_batch_size=2048",
        "data.grad_cache_chunk_tokens=null", "model.gradient_checkpointing=false",
    )  # fmt: skip
    refused = command("train.py", *PLAN, *too_much)
    assert refused.code == 2, refused.err
    assert "Traceback" not in refused.err
    assert "activations" in refused.out
    assert refused.last_line.startswith("plan memory_gib=")
    lines = refused.err.partition("What would run:\n")[2].splitlines()
    first, _, size = lines[0].partition("   # ")
    python, script, *overrides = shlex.split(first)
    assert (python, script) == ("python", "train.py")
    accepted = command(script, *overrides)
    assert accepted.code == 0, accepted.err
    assert f"{float(accepted.last_line.split()[1].split('=')[1]):.1f} GiB" == size.split(":")[0]
    assert sorted(runs.rglob("*")) == before


def test_a_plan_of_an_evaluation_writes_nothing(
    command: Callable[..., Result], environment: dict[str, str]
) -> None:
    runs = Path(environment["QUARRY_RUNS"])
    before = sorted(runs.rglob("*"))  # of other tests
    planned = command("eval.py", "task=plan", "retriever=bm25", "benchmark=msmarco_dl")
    assert planned.code == 0, planned.err
    assert "published counts and mean lengths" in planned.out
    assert planned.last_line == "plan num_texts=8.8489e+06"
    assert sorted(runs.rglob("*")) == before
