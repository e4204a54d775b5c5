"""A study of evaluations does not train, nor the other way round."""

from __future__ import annotations

import pytest

from quarry.config.entry_point import check_entry_point, primaries_of
from quarry.errors import UserError


@pytest.mark.parametrize(
    ("primary", "arguments", "message"),
    [
        ("train", ["seed=1", "study=prompt"], "prompt is for eval, not train. Fix: python eval.py"),
        ("eval", ["study=tiny"], "is for train, not eval. Fix: python train.py study=tiny"),
        ("train", ["experiment=zero_shot"], "experiment=zero_shot is for eval"),
        ("eval", ["-m", "experiment=zero_shot,tiny_sft"], "experiment=tiny_sft is for train"),
        ("eval", ["-m", "study=prompt,tiny_zero_shot"], "a command runs one study"),
    ],
)
def test_what_is_for_the_other_entry_point_is_refused(
    primary: str, arguments: list[str], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        check_entry_point(arguments, primary=primary)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("primary", "arguments"),
    [
        ("train", ["study=tiny", "experiment=none", "study.name=prompt", "task=plan"]),
        ("eval", ["-m", "study=prompt", "experiment=zero_shot,none"]),
        ("eval", ["study=nope", "study=", "study=[", "experiment=glob(*)"]),  # Hydra's to say
    ],
)
def test_everything_else_is_left_to_hydra(primary: str, arguments: list[str]) -> None:
    check_entry_point(arguments, primary=primary)


def test_the_header_tells() -> None:
    assert primaries_of("# @package _global_\n# primary: train\n# x\n") == ("train",)
    assert primaries_of("# primary: train, eval\n") == ("train", "eval")
    assert primaries_of("# x\n") == ("train", "eval")
