"""Rates of encoding: as stated, or as measured with a model of that size on that card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from quarry.planning import rate as module
from quarry.planning.cards import named_card
from quarry.planning.encoding_rate import ENCODED, planned_encoding_rate
from quarry.planning.rate import Rate

SEVEN = 6_525_288_448


def rate(**more: Any) -> Rate | None:
    settings: dict[str, Any] = {
        "num_linear": SEVEN, "dtype": torch.bfloat16, "linear_precision": None,
        "card": named_card("h200"),
    }  # fmt: skip
    return planned_encoding_rate(**(settings | more))


def test_the_measured_rates() -> None:
    content = json.loads(module.MEASURED.read_text(encoding="utf-8"))
    for linear_precision, name in ((None, "ours"), ("fp8", "ours_fp8")):
        found = rate(linear_precision=linear_precision)
        assert found is not None
        assert found.tokens_per_s == content["parts"]["encode_7b"][name]["tokens_per_s"]
        assert (found.source, found.is_limit) == ("docs/performance.md, NVIDIA H200", False)
    small = rate(num_linear=357_826_560)
    assert small is not None
    assert small.tokens_per_s == content["parts"]["encode_05b"]["ours"]["tokens_per_s"]
    names = [pair for pairs in ENCODED.values() for pair in pairs]
    assert all("tokens_per_s" in content["parts"][part][name] for part, name in names)


def test_what_differs_from_the_measurement_is_said() -> None:
    half, slower = rate(dtype=torch.float16), rate(slower=("compiled",))
    assert half is not None
    assert "measured in bfloat16" in half.source
    assert slower is not None
    assert slower.is_limit
    moved = rate(card=named_card("l40s"))
    assert moved is not None
    assert "not measured" in moved.source


@pytest.mark.parametrize(
    "more",
    [{"num_linear": 3 * 10**9}, {"dtype": torch.float32}, {"card": None}],
    ids=["size", "dtype", "card"],
)
def test_what_was_not_measured_is_not_known(more: dict[str, Any]) -> None:
    assert rate(**more) is None
    assert rate(**more, stated=5.0) == Rate(tokens_per_s=5.0, source="as stated")


def test_without_measurements_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEASURED", Path("nowhere.json"))
    assert rate() is None
