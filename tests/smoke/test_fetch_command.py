"""`task=fetch`, then the same command on a machine without a network."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "config"))
from configurations import composed, opened

from helpers.commands import run_command
from helpers.hub_repos import write_lines, write_mteb
from helpers.hub_server import StandInHub, large_copies, served_hub, use_hub
from helpers.models import tiny_folder
from quarry.runtime.hub_access import PROXIES
from quarry.tasks.fetch import fetch

EVALUATION = (
    "model.path=acme/tiny", "benchmark=hub", "benchmark.repo=acme/facts", "logger=none",
)  # fmt: skip
PAIRS = [{"anchor": f"what is {n}", "positive": f"{n} is a number"} for n in range(40)]


def environment_of(
    common: dict[str, str], folder: Path, hub: StandInHub, *, is_offline: bool
) -> dict[str, str]:
    """With caches and runs of its own, and the stand-in hub."""
    environment = common | {
        "QUARRY_CACHE": str(folder / "cache"),
        "QUARRY_RUNS": str(folder / "runs"),
        "HF_HOME": str(folder / "hf"),
        "HF_ENDPOINT": hub.address,
        "HF_HUB_OFFLINE": str(int(is_offline)),
    }
    return {key: value for key, value in environment.items() if key not in PROXIES}


def fill(hub: StandInHub, folder: Path) -> str:
    """Put a model with weights in all forms, a test collection and a training set there; return
    the model's commit."""
    hub.add("acme/facts", write_mteb(folder / "facts"), kind="datasets")
    write_lines(folder / "pairs" / "train.jsonl", PAIRS)
    hub.add("acme/pairs", folder / "pairs", kind="datasets")
    return hub.add("acme/tiny", large_copies(tiny_folder(folder / "model")))


@pytest.mark.timeout(180)
def test_an_evaluation_without_a_network_finds_all_that_was_fetched(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its store, which is named by every byte of the weights that are there."""
    monkeypatch.setattr("quarry.tasks.fetch.show", lambda *_, **__: None)
    with served_hub() as hub:
        fill(hub, tmp_path)
        use_hub(monkeypatch, hub, tmp_path / "hf" / "hub")
        with opened():
            fetch(composed("eval", *EVALUATION, "task=fetch"))
        hub.asked.clear()
        offline = environment_of(environment, tmp_path, hub, is_offline=True)
        ran = run_command("eval.py", *EVALUATION, environment=offline, timeout_s=120)
        assert ran.code == 0, ran.err
        assert ran.last_line.startswith("nDCG@10 ")
        assert hub.asked == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_commands_of_both_entry_points_and_a_sweep(
    environment: dict[str, str], tmp_path: Path
) -> None:
    training = (
        "train.py", "model=local", "model.path=acme/tiny", "model/adapter=lora", "data=hub",
        "data.path=acme/pairs", "data.global_batch_size=8", "trainer.max_steps=2",
        "benchmark=hub", "benchmark.repo=acme/facts", "logger=none", "baseline=none",
        f"hydra.run.dir={tmp_path / 'trained'}",
    )  # fmt: skip
    sweep = ("eval.py", "-m", *EVALUATION, "prompt=none,short", f"hydra.sweep.dir={tmp_path / 's'}")
    with served_hub() as hub:
        commit = fill(hub, tmp_path)
        online = environment_of(environment, tmp_path, hub, is_offline=False)
        fetched = run_command(*training, "task=fetch", environment=online, timeout_s=120)
        assert fetched.code == 0, fetched.err
        assert "All of it is in the hub's cache" in fetched.out
        assert fetched.last_line.startswith("fetch repositories=3 files=")
        assert fetched.last_line.endswith(" failed=0")
        assert not (tmp_path / "trained").exists(), "fetching is no run"
        assert not (tmp_path / "cache").exists()  # no table, no model was made
        snapshot = tmp_path / "hf" / "hub" / "models--acme--tiny" / "snapshots" / commit
        assert {path.name for path in snapshot.rglob("*")} == {
            "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        }  # fmt: skip
        again = run_command(*sweep, "task=fetch", environment=online, timeout_s=120)
        assert again.code == 0, again.err
        assert again.last_line.startswith("fetch repositories=2 files=")
        assert " fetched_bytes=0 " in again.last_line
        assert not (tmp_path / "s").exists()

        hub.asked.clear()
        offline = environment_of(environment, tmp_path, hub, is_offline=True)
        for command in (training, sweep):
            ran = run_command(*command, environment=offline, timeout_s=180)
            assert ran.code == 0, ran.err
        assert hub.asked == []
