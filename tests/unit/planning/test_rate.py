"""Rates: as stated, or as measured with a model of that size, less what is computed twice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.plans import LORA, setup
from quarry.planning import rate as module
from quarry.planning.cards import named_card
from quarry.planning.rate import CHECKPOINTED, MEASURED, WHOLE, Rate, planned_rate
from quarry.planning.step_memory import TrainingSetup
from quarry.planning.zero_buffers import ZeroBuffers

H200 = named_card("h200")


@pytest.fixture(autouse=True)
def _measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """20,000 tokens/s with the 7B, 25,000 in fp8; the 0.5B could not be measured."""
    flop = 4 * 6_525_288_448
    content = {
        "runs": [{"device": "NVIDIA H200"}],
        "parts": {
            "train_7b": {"ours": {"run": 0, "tokens_per_s": 20_000.0, "flop_per_token": flop}},
            "train_7b_fp8": {
                "ours_fp8": {"run": 0, "tokens_per_s": 25_000.0, "flop_per_token": flop}
            },
            "train_05b": {"ours": {"run": 0, "not_run": "no time"}},
        },
    }
    file = tmp_path / "performance.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.setattr(module, "MEASURED", file)


def rate(
    planned: TrainingSetup, *, stated: float | None = None, linear_precision: str | None = None
) -> Rate:
    found = planned_rate(planned, stated=stated, linear_precision=linear_precision, card=H200)
    assert found is not None
    return found


def test_what_is_stated_counts() -> None:
    assert rate(setup(), stated=5.0) == Rate(tokens_per_s=5.0, source="as stated")


@pytest.mark.parametrize(("linear_precision", "tokens_per_s"), [(None, 20_000), ("fp8", 25_000)])
def test_the_measured_rate_of_that_size(linear_precision: str | None, tokens_per_s: float) -> None:
    found = rate(setup(), linear_precision=linear_precision)
    assert (found.tokens_per_s, found.is_limit) == (tokens_per_s, False)
    assert "NVIDIA H200" in found.source


def test_what_is_computed_twice() -> None:
    checkpointed = setup(kept=replace(LORA, gradient_checkpointing=True))
    assert rate(checkpointed).tokens_per_s == pytest.approx(20_000 * 4 / 5.35, rel=0.01)
    assert "divided by 1.3" in rate(checkpointed).source
    # of 20,480 tokens all but the last chunk go through a forward pass more
    in_chunks = rate(setup(grad_cache_chunk_tokens=4096)).tokens_per_s
    assert in_chunks == pytest.approx(20_000 * 4 / (4 + 0.8 * 1.87), rel=0.15)
    assert in_chunks < 20_000 * 4 / (4 + 0.8 * 1.87), "and each chunk has its overhead"
    assert rate(setup(grad_cache_chunk_tokens=40_960)).tokens_per_s == 20_000, "one chunk holds all"


def test_a_measurement_with_checkpointing_goes_before_one_without() -> None:
    content = json.loads(module.MEASURED.read_text(encoding="utf-8"))
    part = dict(content["parts"]["train_7b"]["ours"], tokens_per_s=15_000.0)
    content["parts"]["train_7b_same_memory"] = {"ours": part}
    module.MEASURED.write_text(json.dumps(content), encoding="utf-8")
    checkpointed = setup(kept=replace(LORA, gradient_checkpointing=True))
    assert rate(checkpointed).tokens_per_s == 15_000
    in_chunks = replace(checkpointed, grad_cache_chunk_tokens=4096)
    assert rate(in_chunks).tokens_per_s < 15_000 * 5.35 / (5.35 + 0.8 * 1.87)
    assert rate(setup()).tokens_per_s == 20_000


@pytest.mark.parametrize(
    ("more", "times"),
    [({"has_dropout": True}, 1.047), ({"is_compiled": False}, 1.25)],
    ids=["dropout", "eager"],
)
def test_what_slows_a_step_is_counted_and_said(more: dict[str, bool], times: float) -> None:
    found = rate(setup(kept=replace(LORA, **more)))
    assert found.tokens_per_s == pytest.approx(20_000 / times, rel=0.01)
    assert "divided by 1." in found.source


def test_what_was_not_measured_is_not_told() -> None:
    zero3 = ZeroBuffers(stage=3, reduce_bucket_size=1)
    for other in (
        setup(num_linear=358_000_000),
        setup(kept=replace(LORA, trains_backbone=True)),
        setup(kept=replace(LORA, itemsize=4)),
        setup(zero=zero3),
    ):
        assert planned_rate(other, stated=None, linear_precision=None, card=H200) is None
    assert planned_rate(setup(), stated=None, linear_precision=None, card=None) is None


def test_a_rate_of_another_card_is_an_estimate() -> None:
    found = planned_rate(setup(), stated=None, linear_precision=None, card=named_card("a100-80gb"))
    assert found is not None
    assert found.tokens_per_s == pytest.approx(20_000 * 312 / 989.4)
    assert "estimated from NVIDIA H200 by peak ratio, not measured" in found.source
    assert (
        planned_rate(setup(), stated=None, linear_precision="fp8", card=named_card("a100-80gb"))
        is None
    )


def test_without_measurements_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEASURED", Path("nowhere.json"))
    assert planned_rate(setup(), stated=None, linear_precision=None, card=H200) is None


def test_the_measurements_are_those_of_the_page() -> None:
    """Under the names that are asked for, in the units that are read."""
    content = json.loads(MEASURED.read_text(encoding="utf-8"))
    names = [name for forms in (WHOLE, CHECKPOINTED) for form in forms.values() for name in form]
    found = [content["parts"].get(part, {}).get(name, {}) for part, name in names]
    measured = [part for part in found if "tokens_per_s" in part]
    assert measured
    assert all(part["flop_per_token"] > 1e9 for part in measured)
