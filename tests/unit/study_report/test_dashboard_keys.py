from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from quarry.errors import UserError
from quarry.study_report.dashboard_keys import LoggedKeys, logged_keys, project_of
from quarry.study_report.dashboard_panels import sections

RESULTS = {"scifact/ndcg_at_10": 0.5, "fiqa/ndcg_at_10": 0.3, "mean/ndcg_at_10": 0.4}


def _run(folder: Path, *, lr: float, gpu_hours: float = 0.0, project: str = "quarry") -> Path:
    folder.mkdir()
    config = {
        "optimizer": {"lr": lr},
        "callbacks": {"throughput": {"_target_": "x"}},
        "evaluation": {"measures": ["nDCG@10"], "num_examples": 5},
    }
    summary = {"results": RESULTS, "beside": {}, "cost": {"device_hours": 1.0}}
    summary["cost"]["gpu_hours"] = gpu_hours
    (folder / "config_resolved.yaml").write_text(yaml.safe_dump(config))
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "wandb_run.json").write_text(json.dumps({"id": "a", "project": project}))
    return folder


def test_keys_are_those_of_the_runs(tmp_path: Path) -> None:
    runs = [_run(tmp_path / "a", lr=0.1), _run(tmp_path / "b", lr=0.2, gpu_hours=1.0)]
    keys = logged_keys(runs)
    assert keys.measure == "ndcg_at_10"
    assert keys.sets == ("fiqa", "scifact")
    assert keys.swept == ("optimizer.lr",)
    assert {"val/mean/ndcg_at_10", "train/loss", "perf/gpu_memory_share"} <= keys.history
    assert "train/gradient_norm" not in keys.history  # the callback is not configured
    assert "perf/gpu_memory_share" not in logged_keys(runs[:1]).history  # on a CPU
    assert project_of(runs) == "quarry"


def _with(run: Path, **parts: Any) -> Path:
    file = run / "config_resolved.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | parts))
    return run


def test_a_run_of_an_earlier_version_has_current_keys(tmp_path: Path) -> None:
    data = {"num_queries_per_update": 8}
    old = _with(_run(tmp_path / "a", lr=0.1), data=data)
    new = _with(_run(tmp_path / "b", lr=0.2), data={"global_batch_size": 8})
    assert logged_keys([old, new]).swept == ("optimizer.lr",)
    newer = _with(_run(tmp_path / "c", lr=0.1), data={"global_batch_size": 16})
    assert logged_keys([old, newer]).swept == ("data.global_batch_size",)


def test_the_measure_is_the_one_that_most_runs_have(tmp_path: Path) -> None:
    without = _with(_run(tmp_path / "a", lr=0.1), evaluation={"measures": ["MRR@10"]})
    runs = [without, _run(tmp_path / "b", lr=0.1), _run(tmp_path / "c", lr=0.1)]
    assert logged_keys(runs).measure == "ndcg_at_10"
    (without / "summary.json").unlink()
    _with(without, evaluation={})
    keys = logged_keys(runs)
    assert (keys.measure, keys.sets) == ("ndcg_at_10", ("fiqa", "scifact"))


def test_runs_that_were_not_logged_or_are_in_two_projects_are_refused(tmp_path: Path) -> None:
    runs = [_run(tmp_path / "a", lr=0.1), _run(tmp_path / "b", lr=0.1, project="other")]
    with pytest.raises(UserError, match="other, quarry"):
        project_of(runs)
    for run in runs:
        (run / "wandb_run.json").unlink()
    with pytest.raises(UserError, match="logger=wandb"):
        logged_keys(runs)


def test_a_section_without_keys_is_left_out(tmp_path: Path) -> None:
    found = sections(logged_keys([_run(tmp_path / "a", lr=0.1), _run(tmp_path / "b", lr=0.2)]))
    assert list(found) == ["Quality", "Sweep", "Cost and quality", "Training", "Tables"]
    nothing = frozenset[str]()
    keys = LoggedKeys(
        measure="m", sets=(), history=nothing, summary=nothing, tables=nothing, swept=()
    )
    assert sections(keys) == {}


def test_workspace_and_report_have_every_panel(tmp_path: Path) -> None:
    pytest.importorskip("wandb_workspaces")
    from quarry.study_report.dashboard import as_json, report, workspace

    keys = logged_keys([_run(tmp_path / "a", lr=0.1), _run(tmp_path / "b", lr=0.2)])
    view = as_json(workspace(keys, entity="", project="p", study="tiny"))
    page = report(keys, entity="", project="p", study="tiny", specialisations={"code": ["c"]})
    shown: list[Any] = [
        panel
        for section in view["spec"]["section"]["panelBankConfig"]["sections"]
        for panel in section["panels"]
    ]
    assert len(shown) == sum(len(specs) for specs in sections(keys).values())
    for text in ("config:optimizer.value.lr", "options.value.model", '"tiny"'):
        assert text in json.dumps(view)
    assert "options.model" in json.dumps(as_json(page))
