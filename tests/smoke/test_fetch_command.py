"""`python eval.py task=fetch`, then the same command on a machine without a network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helpers.commands import quiet_environment, run_command
from helpers.hub_repos import write_mteb
from helpers.hub_server import large_copies, served_hub
from helpers.models import tiny_folder
from quarry.runtime.hub import PROXIES


@pytest.mark.timeout(180)
def test_what_was_fetched_is_all_that_an_evaluation_without_a_network_needs(tmp_path: Path) -> None:
    environment = quiet_environment(tmp_path) | {"HF_HOME": str(tmp_path / "hf")}
    for name in PROXIES:
        environment.pop(name, None)
    online = {k: v for k, v in environment.items() if k != "HF_HUB_OFFLINE"}
    command = (
        "eval.py", "model.path=acme/tiny", "benchmark=hub", "benchmark.repo=acme/facts",
        "logger=none", f"hydra.run.dir={tmp_path / 'run'}",
    )  # fmt: skip
    with served_hub() as hub:
        commit = hub.add("acme/tiny", large_copies(tiny_folder(tmp_path / "model")))
        hub.add("acme/facts", write_mteb(tmp_path / "facts"), kind="datasets")
        fetched = run_command(
            *command, "task=fetch", environment=online | {"HF_ENDPOINT": hub.address}, timeout_s=90
        )
        num_asked = len(hub.asked)
        assert fetched.code == 0, fetched.err
        assert "All of it is in the hub's cache" in fetched.out
        assert fetched.last_line.startswith("fetch repositories=2 files=")
        assert fetched.last_line.endswith("failed=0")
        assert list((tmp_path / "run").iterdir()) == []
        assert not (tmp_path / "cache").exists()  # no table, no model was made
        snapshot = tmp_path / "hf/hub/models--acme--tiny/snapshots" / commit
        here = {path.name for path in snapshot.rglob("*")}
        assert here == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}

        ran = run_command(
            *command, environment=environment | {"HF_ENDPOINT": hub.address}, timeout_s=90
        )
        assert ran.code == 0, ran.err
        assert "facts" in ran.last_line or "nDCG@10" in ran.last_line
        assert len(hub.asked) == num_asked, hub.asked[num_asked:]
    assert os.environ.get("HF_HUB_OFFLINE") == "1"
