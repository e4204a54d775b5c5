from __future__ import annotations

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from quarry.sweep.inputs import CommandLine
from quarry.sweep.job import job_command, quoted

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


def test_a_job_that_is_continued_gets_the_packages_that_its_sweep_trusts() -> None:
    own = ("loss=mine", "trusted_packages=[a]")
    command = CommandLine(config_name="train", sources=(), overrides=own, hydra_overrides=())
    words = job_command(
        command,
        ["train.py"],
        Path("RUN"),
        settings={"study.name": "s", "trusted_packages": ("a", "b.c"), "task.num_jobs_at_once": 2},
        overrides=["task=resume", "run=RUN"],
    )
    assert words.count("trusted_packages=[a,b.c]") == 1
    assert "task.num_jobs_at_once=2" in words
    overrides = [word for word in words if word.startswith("trusted")]
    (override,) = OverridesParser.create().parse_overrides(overrides)
    assert not override.is_sweep_override()
    assert override.value() == ["a", "b.c"]
