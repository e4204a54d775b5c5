"""Two and three processes == one: loss, gradients and weights, for every strategy and GradCache.

LoRA takes the fast path in all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.joint_training import (
    Case,
    cases,
    cases_of,
    dropout_cases,
    relative_error,
    train,
)
from helpers.preloaded import PreloadedPython
from helpers.processes import run_processes

WORKER = Path(__file__).with_name("gradients_worker.py")
GRADIENTS = {True: 1e-9, False: 1e-5}
"""Relative L2 error that is allowed, in fp64 and in fp32, where sums are made in another order."""

CASES = [
    pytest.param(number, case, id=f"{number} processes, {case.name}")
    for number in (2, 3)
    for case in cases_of(number)
]

Results = Callable[[int, Case], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def results(preloaded_python: PreloadedPython, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Number of processes, case -> what each process found; one launch for all cases."""

    @cache
    def launched(num_processes: int) -> Path:
        folder = tmp_path_factory.mktemp(f"processes{num_processes}")
        run_processes(
            preloaded_python,
            WORKER,
            str(folder),
            num_processes=num_processes,
            timeout_s=360,
        )
        return folder

    def of(num_processes: int, case: Case) -> list[dict[str, Any]]:
        files = [launched(num_processes) / f"{case.name}.{r}.pt" for r in range(num_processes)]
        return [torch.load(file) for file in files]

    return of


@cache
def alone(case: Case) -> dict[str, Any]:
    """The same training in one process."""
    return train(replace(case, strategy="auto"), num_processes=1)


@pytest.mark.timeout(420)
@pytest.mark.parametrize(("num_processes", "case"), CASES)
def test_several_processes_equal_one(num_processes: int, case: Case, results: Results) -> None:
    budget = None if case.loss is not None else case.budget
    expected = alone(replace(case, strategy="auto", budget=budget))
    assert len(expected["gradients"]) == case.num_steps
    for rank, found in enumerate(results(num_processes, case)):
        assert found["calls"]["peft"] == 0
        assert (found["calls"]["fast"] > 0) == case.is_lora
        for ours, theirs in zip(found["gradients"], expected["gradients"], strict=True):
            assert relative_error(ours, theirs) <= GRADIENTS[case.is_double]
        for ours, theirs in zip(found["metrics"], expected["metrics"], strict=True):
            assert ours["train/loss"] == pytest.approx(theirs["train/loss"], rel=1e-5)
            assert ours.keys() == theirs.keys()
            for name in theirs.keys() - {"train/loss"}:
                # where two passages are equally similar, rounding says which is first
                is_share = name.endswith(("accuracy", "agreement"))
                tolerance = {"abs": 0.15} if is_share else {"rel": 1e-4, "abs": 1e-5}
                assert ours[name] == pytest.approx(theirs[name], **tolerance)
        if rank == 0:
            assert relative_error(found["weights"], expected["weights"]) <= 1e-6


@pytest.mark.timeout(420)
@pytest.mark.parametrize("case", dropout_cases("zero3"), ids=lambda case: case.name)
def test_dropout_in_shards_equals_dropout_of_whole_weights(case: Case, results: Results) -> None:
    """Each rank draws the same masks under both strategies."""
    whole = replace(case, strategy="zero2")
    for found, expected in zip(results(2, case), results(2, whole), strict=True):
        assert found["calls"]["peft"] == 0
        assert found["calls"]["fast"] > 0
        assert len(found["gradients"]) == case.num_steps
        for ours, theirs in zip(found["gradients"], expected["gradients"], strict=True):
            assert relative_error(ours, theirs) <= GRADIENTS[False]
    plain = Case(strategy="zero3", is_lora=True)
    gradients = results(2, plain)[0]["gradients"][0]
    assert relative_error(results(2, case)[0]["gradients"][0], gradients) > 0.01


@pytest.mark.timeout(420)
def test_what_is_compared_would_show_a_lost_share(results: Results) -> None:
    """Gradients differ between optimizer steps, and between one contrastive batch and two."""
    one, two = Case(strategy="ddp", is_double=True), None
    found = results(2, one)[0]["gradients"]
    assert relative_error(found[0], found[1]) > 0.01
    two = next(c for c in cases(["ddp"]) if c.num_contrastive_batches == 2 and not c.is_lora)
    assert relative_error(results(2, two)[0]["gradients"][0], found[0]) > 0.01


@pytest.mark.timeout(420)
def test_shares_are_uneven_and_the_metrics_are_the_same_everywhere(results: Results) -> None:
    first, *others = results(3, Case(strategy="ddp", is_double=True))
    assert all(other["metrics"] == first["metrics"] for other in others)
    sizes = [found["num_queries"] for found in (first, *others)]
    assert len({tuple(size) for size in sizes}) > 1
    assert [sum(each) for each in zip(*sizes, strict=True)] == [7, 7]


@pytest.mark.timeout(420)
def test_all_processes_end_with_the_same_weights(results: Results) -> None:
    for case in cases(["zero2", "zero3"]):
        first, second = results(2, case)
        assert first["digest"] == second["digest"], case.name
