"""What cannot run is refused with the command that could."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from quarry.assembly.preflight import command_with, preflight
from quarry.errors import UserError
from quarry.models.model_spec import ModelSpec
from quarry.models.remedies import CannotLoadError


class Factory:
    """Fits nowhere."""

    linear_precision = None

    def check(self, *, is_trained: bool, on_cpu: bool, spread: object) -> None:
        del is_trained, on_cpu, spread
        remedies = {"model.size=3B": "the largest that fits", "model.size=tiny": "to try it"}
        raise CannotLoadError("Too large.", remedies=remedies)


@pytest.fixture
def _job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if `python train.py model=qwen-base model.size=7B 'prompt.query=a {text}'` ran."""
    (tmp_path / "one.yaml").write_text("{}\n")
    with initialize_config_dir(config_dir=str(tmp_path), version_base="1.3"):
        config: Any = compose("one", overrides=["hydra.job.name=train"], return_hydra_config=True)
    config.hydra.overrides.task = ["model=qwen-base", "model.size=7B", "prompt.query=a {text}"]
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(HydraConfig, "get", lambda: config.hydra)


@pytest.mark.usefixtures("_job")
def test_the_command_of_the_job_with_one_override_in_place() -> None:
    expected = "python train.py model=qwen-base 'prompt.query=a {text}' model.size=tiny"
    assert command_with("model.size=tiny") == expected


@pytest.mark.usefixtures("_job")
def test_every_remedy_is_a_command_with_what_it_means() -> None:
    spec: ModelSpec = Factory()  # type: ignore[assignment]
    with pytest.raises(UserError) as caught:
        preflight(spec, is_trained=True)
    first, heading, *commands = str(caught.value).splitlines()
    assert (first, heading) == ("Too large.", "What would run:")
    assert [line.split("model.size=")[1] for line in commands] == [
        "3B   # the largest that fits",
        "tiny   # to try it",
    ]
    assert all(line.startswith("  python train.py model=qwen-base") for line in commands)


def test_outside_a_job_the_override_alone_is_named() -> None:
    assert command_with("model.size=tiny") == "model.size=tiny"
