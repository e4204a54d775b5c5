from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from quarry.config.lora_rules import lora_violations


def found(**adapter: Any) -> list[str]:
    return list(lora_violations(OmegaConf.create({"model": {"adapter": adapter}})))


@pytest.mark.parametrize("dropout", [1, 1.5, -0.1])
def test_a_share_that_is_none(dropout: float) -> None:
    (violation,) = found(r=4, dropout=dropout)
    assert violation.startswith(f"model.adapter.dropout={dropout}: ")


def test_each_key_has_its_own_line() -> None:
    first, second = found(r=0, dropout=1)
    assert first.startswith("model.adapter.r=0: ")
    assert second.startswith("model.adapter.dropout=1: ")


@pytest.mark.parametrize("adapter", [{"r": 1, "dropout": 0}, {"r": 64, "dropout": 0.999}, {}])
def test_what_is_right_passes(adapter: dict[str, Any]) -> None:
    assert found(**adapter) == []
    assert list(lora_violations(OmegaConf.create({"model": {}}))) == []
