from __future__ import annotations

import pytest

from quarry.config.command_line import prepared_arguments


@pytest.mark.parametrize(
    ("typed", "prepared"),
    [
        (["a=1", "-m", "b=1,2"], ["a=1", "b=1,2", "-m"]),
        (["--multirun", "a=1,2"], ["a=1,2", "--multirun"]),
        (["--cfg", "job", "a=1", "--resolve", "b=2"], ["a=1", "b=2", "--cfg", "job", "--resolve"]),
        (["-cd", "x=y", "a=1"], ["a=1", "-cd", "x=y"]),
        (["-sc", "install=bash"], ["install=bash", "-sc"]),
        (["--cfg"], ["--cfg"]),
        (["--info", "defaults", "a=1"], ["a=1", "--info", "defaults"]),
        (["--info", "a=1"], ["a=1", "--info"]),
        (["-i", "--config-name", "-x", "a=1"], ["a=1", "-i", "--config-name", "-x"]),
    ],
)
def test_flags_stand_anywhere(typed: list[str], prepared: list[str]) -> None:
    assert prepared_arguments(typed) == prepared


def test_lightnings_arguments_need_no_plus() -> None:
    typed = ["trainer.detect_anomaly=true", "+trainer.limit_train_batches=2", "trainer.max_steps=3"]
    prepared = ["++trainer.detect_anomaly=true", "++trainer.limit_train_batches=2"]
    assert prepared_arguments(typed) == [*prepared, "trainer.max_steps=3"]
    assert prepared_arguments(["trainer.max_stepz=3"]) == ["trainer.max_stepz=3"]
