"""Run measurements as separate processes: environment, time limit and termination."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VISIBLE = "CUDA_VISIBLE_DEVICES"


def environment(*, gpus: Sequence[int] | None = None) -> dict[str, str]:
    """Return the environment of scripts: this checkout's package and callbacks, no network.

    Args:
        gpus: visible GPUs, as indices of those of this process; None: the same ones.
    """
    own = [str(ROOT / "src"), str(ROOT / "bench")]
    path = os.pathsep.join(filter(None, [*own, os.environ.get("PYTHONPATH", "")]))
    common = os.environ | {
        "PYTHONPATH": path,
        "HF_HUB_OFFLINE": "1",
        "PYTHONFAULTHANDLER": "1",
        # for all sides alike: batches of changing size would fragment memory
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
    }
    if gpus is None:
        return common
    seen = os.environ.get(VISIBLE)
    names = list(map(str, gpus)) if seen is None else [seen.split(",")[one] for one in gpus if seen]
    return common | {VISIBLE: ",".join(names)}


def end(process: subprocess.Popen[str]) -> None:
    """Kill a process and its children; Python's fault handler prints where it was."""
    for sent, wait_s in ((signal.SIGABRT, 2), (signal.SIGKILL, 0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
        time.sleep(wait_s)


def reason(output: str) -> str:
    """Return the last line that names an error (with the next one after a colon), or the last."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", output) if line.strip()]
    errors = [i for i, line in enumerate(lines) if re.match(r"[\w.]*(Error|Exception)\b", line)]
    if not errors:
        return (lines or ["failed without a word"])[-1][:240]
    end = errors[-1] + (2 if lines[errors[-1]].endswith(":") else 1)
    return " ".join(lines[errors[-1] : end])[:240]


def run_until(
    command: Sequence[str],
    *,
    log: Path,
    variables: Mapping[str, str],
    time_limit_s: float,
    ends_when: Path | None = None,
    grace_s: float = 0,
) -> int | None:
    """Run a command; return its exit code, 0 if `ends_when` ended it, None for a timeout.

    Args:
        log: receives its output.
        variables: additional environment variables.
        ends_when: once this file exists, the command and its children are killed.
        grace_s: seconds to wait before that for it to end by itself.
    """
    with log.open("a", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, env=environment() | dict(variables), stdin=subprocess.DEVNULL, stdout=file,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
    start, seen = time.monotonic(), None
    try:
        while process.poll() is None:
            now = time.monotonic()
            if seen is None and ends_when is not None and ends_when.exists():
                seen = now
            if seen is not None and now >= seen + grace_s:
                return 0
            if seen is None and now > start + time_limit_s:
                end(process)
                return None
            time.sleep(0.02)
        return process.returncode
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
