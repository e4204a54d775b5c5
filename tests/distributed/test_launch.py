"""Processes agree on a value before they have a group, whoever has started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest

from helpers.preloaded import PreloadedPython
from helpers.processes import free_port, run_processes
from quarry.distributed.launch import agreed_with_first, ends_children
from quarry.errors import Interrupted, LostRankError

WORKER = Path(__file__).parent / "meeting_worker.py"


def test_all_take_the_value_of_the_first_under_deepspeeds_launcher_and_slurm(
    preloaded_python: PreloadedPython,
) -> None:
    run_processes(preloaded_python, WORKER, str(free_port()), num_processes=3, timeout_s=120)


def test_without_a_launcher_it_is_the_own_value(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "SLURM_NTASKS", "TORCHELASTIC_USE_AGENT_STORE"):
        monkeypatch.delenv(name, raising=False)
    assert agreed_with_first("own") == "own"


PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], env=os.environ | {"LOCAL_RANK": "1"})
print(child.pid, flush=True)
time.sleep(60)
"""
CHILD = """
import time
from quarry.distributed.launch import settle_launcher
settle_launcher()
print("settled", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of it")
def test_a_child_ends_with_the_process_that_started_it_however_that_ends() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    assert process.stdout.readline() == "settled\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while _is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    is_alive = _is_alive(child)
    if is_alive:
        os.kill(child, signal.SIGKILL)
    assert not is_alive


def test_a_child_that_was_killed_is_told_of_and_the_others_end() -> None:
    sleeps = [sys.executable, "-c", "import time; time.sleep(60)"]
    killed, waiting = subprocess.Popen(sleeps), subprocess.Popen(sleeps)
    killed.kill()
    strategy = SimpleNamespace(launcher=SimpleNamespace(procs=[killed, waiting]))
    with (
        mock.patch("quarry.distributed.launch.GRACE_S", 0.5),
        pytest.raises(LostRankError, match="Rank 1 of this node was ended by SIGKILL"),
        ends_children(strategy),
    ):
        raise RuntimeError("gloo/transport/tcp/pair.cc:534] Connection reset by peer")
    assert waiting.wait(timeout=20) == -signal.SIGKILL


def test_a_signal_is_passed_on_to_the_children(caplog: pytest.LogCaptureFixture) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    strategy = SimpleNamespace(launcher=SimpleNamespace(procs=[child]))
    with pytest.raises(Interrupted), ends_children(strategy):
        raise Interrupted("SIGINT.", is_shared=False)
    assert child.wait(timeout=20) == -signal.SIGTERM
    assert not caplog.records


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
