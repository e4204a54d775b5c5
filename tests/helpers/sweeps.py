"""Sweeps that tests start, stop and look at."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from helpers.commands import ROOT

COUNTER = """
import os, pathlib, sys
pathlib.Path(os.environ["STARTED"], str(os.getpid())).write_text("\\n".join(sys.orig_argv))
"""


def jobs_of(folder: Path) -> dict[str, dict[str, Any]]:
    """The jobs in a study's record, by directory; none before there is one."""
    path = folder / "study.json"
    jobs = json.loads(path.read_text())["jobs"] if path.exists() else []
    return {job["directory"]: job for job in jobs}


def counted(environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    """An environment in which every Python process leaves its command line in `folder`/started."""
    (folder / "started").mkdir(parents=True)
    (folder / "sitecustomize.py").write_text(COUNTER)
    path = f"{folder}:{environment.get('PYTHONPATH', '')}"
    return {**environment, "PYTHONPATH": path, "STARTED": str(folder / "started")}


def commands_started(folder: Path, script: str) -> list[list[str]]:
    """The command lines of the processes that ran `script`."""
    lines = [path.read_text().split("\n") for path in (folder / "started").iterdir()]
    return [line for line in lines if any(part.endswith(f"/{script}") for part in line[:3])]


class StartedSweep:
    """A sweep that goes on while a test looks at it."""

    def __init__(self, script: str, *overrides: str, environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / script), *overrides],
            cwd=environment["HOME"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def stopped_when(self, condition: Callable[[], bool], number: signal.Signals) -> str:
        """Sends the signal once the condition holds; all its processes are gone. Returns what it
        said."""
        deadline = time.monotonic() + 90
        try:
            while not condition():
                assert self.process.poll() is None, self.process.communicate()[1]
                assert time.monotonic() < deadline, "the condition did not come"
                time.sleep(0.02)
            started = psutil.Process(self.process.pid).children(recursive=True)
            self.process.send_signal(number)
            _, error = self.process.communicate(timeout=60)
            _, alive = psutil.wait_procs(started, timeout=20)
            assert [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []
        finally:
            self.process.kill()
        return error
