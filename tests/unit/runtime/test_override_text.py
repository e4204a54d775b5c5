from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from quarry.runtime.override_text import quoted

VALUES = (
    *("tiny", "null", "True", "/a/b", "12", "2026-11-26_sweep"),
    *("a b", 'a"b', "a\\b", "b\\", 'c\\"d', "a,b"),
)


@pytest.mark.parametrize("value", VALUES)
def test_hydra_takes_a_quoted_value_for_this_very_text(value: str) -> None:
    (override,) = OverridesParser.create().parse_overrides([f"study.name={quoted(value)}"])
    assert not override.is_sweep_override()
    found = override.value()
    assert str(found) == value
    assert isinstance(found, str) or type(found).__name__ == "QuotedString"
