"""Cards: found by the names that CUDA gives them, and rates moved between them by their peaks."""

from __future__ import annotations

import pytest

from quarry.errors import UserError
from quarry.planning.cards import CARDS, card_of, named_card, rate_on


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("NVIDIA B200", "b200"),
        # other clocks, or a part of a card
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA H100 NVL", None),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA H200 NVL", None),
        ("NVIDIA H200 MIG 1g.18gb", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA L40", None),
        ("Tesla V100-SXM2-16GB", None),
    ],
)
def test_a_card_is_found_by_its_full_name(device: str, name: str | None) -> None:
    found = card_of(device)
    assert (None if found is None else found.name) == name


def test_names_of_the_table() -> None:
    assert named_card("H200").memory_gib == 139.8
    with pytest.raises(UserError, match=r"task\.card=v100: there is no such card .*h200.*Fix:"):
        named_card("v100")
    assert len({card.name for card in CARDS}) == len(CARDS)
    assert all(card.source and card.memory_gib > 20 for card in CARDS)


def on(
    name: str | None, *, linear_precision: str | None = None, measured_on: str = "NVIDIA H200"
) -> object:
    card = None if name is None else named_card(name)
    return rate_on(
        card, tokens_per_s=1000.0, measured_on=measured_on, linear_precision=linear_precision
    )


def test_a_rate_belongs_to_its_card() -> None:
    assert on("h200") == (1000.0, "NVIDIA H200")
    assert on(None) is None
    assert on("h200", measured_on="2 CPU cores") is None


def test_a_rate_of_another_card_follows_the_peaks_and_says_so() -> None:
    moved = on("a100-80gb")
    assert isinstance(moved, tuple)
    assert moved[0] == pytest.approx(1000 * 312 / 989.4)
    assert moved[1] == (
        "estimated from NVIDIA H200 by peak ratio, not measured (312 to 989.4 TFLOP/s)"
    )
    same_compute = on("h100")
    assert isinstance(same_compute, tuple)
    assert same_compute[0] == 1000
    assert "not measured" in same_compute[1]


def test_fp8_is_moved_by_the_peaks_of_fp8() -> None:
    moved = on("l40s", linear_precision="fp8")
    assert isinstance(moved, tuple)
    assert moved[0] == pytest.approx(1000 * 733 / 1978.9)
    assert on("a100-80gb", linear_precision="fp8") is None, "it has no fp8"
