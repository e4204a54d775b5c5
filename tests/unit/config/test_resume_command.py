from __future__ import annotations

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from quarry.config.resume_command import resume_command


@pytest.mark.parametrize("run", ["runs/a", "/my runs/a", "/b/it's=1,2", "/b/$HOME", 'x "y"'])
def test_shell_and_hydra_read_the_directory_back(run: str) -> None:
    words = shlex.split(resume_command(OmegaConf.create({"seed": 1}), run))
    override = OverridesParser.create().parse_override(words[-1])
    assert (override.key_or_group, override.value()) == ("run", run)
    assert words[-2] == "task=resume"


def test_packages_of_the_run_are_trusted() -> None:
    config = OmegaConf.create({"loss": {"_target_": "my_losses.Margin"}})
    command = resume_command(config, "runs/a")
    assert command.endswith(" task=resume run=runs/a trusted_packages=[my_losses]")
