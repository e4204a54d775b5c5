"""An encode that is killed again and again ends with the bits of one that never was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from helpers.commands import ROOT
from helpers.killed_encoding import NUM_TEXTS, POINTS
from quarry.retrieval.encoder import NUM_BATCHES_AHEAD

SEEDS = ("2", "3")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `helpers/killed_encoding.py` saw; two seeds of eight deaths, each kind twice or more."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    folder = tmp_path_factory.mktemp("killed")
    process = subprocess.run(
        [sys.executable, "-m", "helpers.killed_encoding", str(folder), *SEEDS],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    found: dict[str, Any] = json.loads(process.stdout)
    return found


def test_deaths_are_many_and_of_every_kind(result: dict[str, Any]) -> None:
    rounds = [entry for broken in result["broken"] for entry in broken["rounds"]]
    deaths = [entry["point"] for entry in rounds if entry["code"] == -signal.SIGKILL]
    assert len(deaths) == 8 * len(SEEDS)
    assert set(deaths) == {*POINTS, "any time"}


def test_what_was_finished_is_not_encoded_again(result: dict[str, Any]) -> None:
    for broken in result["broken"]:
        for entry in broken["rounds"]:
            encoded = {start for start, _ in entry["encoded"]}
            assert not encoded & set(entry["before"]), entry["point"]
        assert broken["finished"] == sorted(set(broken["finished"]))


def test_only_batches_in_flight_are_lost(result: dict[str, Any]) -> None:
    for broken in result["broken"]:
        sizes = dict(pair for entry in broken["rounds"] for pair in entry["encoded"])
        assert sum(sizes.values()) == NUM_TEXTS
        num_encoded = sum(size for entry in broken["rounds"] for _, size in entry["encoded"])
        num_deaths = len(broken["rounds"]) - 1
        at_most = num_deaths * (NUM_BATCHES_AHEAD + 1) * max(sizes.values())
        assert NUM_TEXTS < num_encoded <= NUM_TEXTS + at_most


def test_the_result_is_that_of_an_unbroken_encode(result: dict[str, Any]) -> None:
    assert {broken["digest"] for broken in result["broken"]} == {result["unbroken"]}
    assert set(result["together"]["digests"]) == {result["unbroken"]}


def test_of_several_processes_each_text_is_encoded_by_one(result: dict[str, Any]) -> None:
    """The first dies with the lock in its hand; the next goes on, and the last finds it done."""
    together = result["together"]
    assert together["codes"] == {"first": -signal.SIGKILL, "b": 0, "c": 0}
    encoded = together["encoded"]
    assert [] in (encoded["b"], encoded["c"])
    rest = {start for start, _ in encoded["b"] + encoded["c"]}
    assert len(rest) == len(encoded["b"] + encoded["c"])
    assert together["finished"] == sorted(set(together["finished"]))
    # the first had finished four when it died: these nobody encoded again
    lost = {start for start, _ in encoded["first"]} & rest
    assert len({start for start, _ in encoded["first"]} - lost) == 4
