"""Values that no measure can have are never shown."""

from __future__ import annotations

import pytest

from quarry.evaluation.scoring import check_range


@pytest.mark.parametrize("value", [0.0, 1.0, 1 + 1e-12, -1e-12])
def test_values_of_measures_pass(value: float) -> None:
    check_range({"nDCG@10": {"q": value}}, set_name="s")


@pytest.mark.parametrize("value", [8.5e13, -0.1, 1.01, float("nan"), float("inf")])
def test_a_value_outside_is_an_internal_error_with_its_place(value: float) -> None:
    with pytest.raises(RuntimeError, match=rf"^s: MRR@10 of query 'b' is {value}, outside 0 to 1"):
        check_range({"nDCG@10": {"a": 1.0}, "MRR@10": {"a": 0.5, "b": value}}, set_name="s")
