from __future__ import annotations

from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser

from quarry.sweep.inputs import CommandLine
from quarry.sweep.job import job_command


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
