from __future__ import annotations

import os
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from quarry.assembly import run_start
from quarry.assembly.run_start import record_start
from quarry.runtime.run_directory import RunDirectory


def test_a_kill_at_any_moment_leaves_no_half_of_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDirectory(tmp_path)
    replaced: list[str] = []
    replace = os.replace

    def watched(source: Path, target: Path) -> None:
        assert Path(source).stat().st_size > 0
        replaced.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    monkeypatch.setattr(run_start, "chosen_options", dict)
    monkeypatch.setattr(run_start, "dry_run_of", lambda config: None)
    monkeypatch.setattr(run_start, "collect_provenance", dict)
    config = OmegaConf.create({"a": 1, "b": "${a}"})
    assert record_start(config, run, contract=None) == {"a": 1, "b": 1}
    assert replaced == ["config.yaml", "config_resolved.yaml", "provenance.json"]
    assert run.config.read_text() == "a: 1\nb: ${a}\n"
    assert run.resolved_config.read_text() == "a: 1\nb: 1\n"
