"""The panels of a dashboard name what a run has logged, as its offline W&B run says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import wandb_files
from helpers.commands import Result
from quarry.study_report.dashboard_keys import OF_CALLBACKS, logged_keys
from quarry.study_report.dashboard_panels import STEP, sections


def test_every_panel_names_keys_that_the_run_has_logged(trained: tuple[Path, Result]) -> None:
    run, _ = trained
    history = {key for row in wandb_files.history(run) for key in row}
    # tokens a second come every `log_every_n_steps` steps, and this run may have fewer
    history |= set(OF_CALLBACKS["callbacks.throughput"])
    summary, config = wandb_files.summary(run), wandb_files.config(run)
    panels = [panel for specs in sections(logged_keys([run])).values() for panel in specs]
    assert {panel.kind for panel in panels} >= {"lines", "bars", "scatter", "table"}
    assert STEP in history
    for panel in panels:
        assert set(panel.history) <= history, panel
        assert set(panel.summary) <= summary.keys(), panel
        if panel.table is not None:
            assert wandb_files.tables(run, panel.table), panel
        for key in (*panel.config, *([panel.group_by] if panel.group_by else [])):
            node = config
            for part in key.split("."):
                node = node[part]


def test_the_dashboard_is_written_without_an_account(
    trained: tuple[Path, Result], command: Callable[..., Result], tmp_path: Path
) -> None:
    run, _ = trained
    file = tmp_path / "dashboard.json"
    made = command("eval.py", "task=dashboard", f"runs=[{run}]", f"task.output={file}")
    try:
        import wandb_workspaces.workspaces  # noqa: F401
    except ImportError:
        assert made.code == 2
        assert "pip install 'quarry-retrieval[dashboard]'" in made.err
        pytest.skip("wandb-workspaces is not installed")
    assert made.code == 0, made.err
    assert json.loads(file.read_text()).keys() == {"workspace", "report"}
