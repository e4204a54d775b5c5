"""How measurements run as processes of their own: what they are told, and how they are ended."""

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
    """Return what scripts find: the package and callbacks of this checkout, and no network.

    Args:
        gpus: that they see, numbered within those of this process; None: the same.
    """
    own = [str(ROOT / "src"), str(ROOT / "bench")]
    path = os.pathsep.join(filter(None, [*own, os.environ.get("PYTHONPATH", "")]))
    common = os.environ | {
        "PYTHONPATH": path,
        "HF_HUB_OFFLINE": "1",
        "PYTHONFAULTHANDLER": "1",
        # for all alike: batches of changing size leave gaps in memory otherwise
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
    }
    if gpus is None:
        return common
    seen = os.environ.get(VISIBLE)
    names = list(map(str, gpus)) if seen is None else [seen.split(",")[one] for one in gpus if seen]
    return common | {VISIBLE: ",".join(names)}


def end(process: subprocess.Popen[str]) -> None:
    """With all that it had started; Python's fault handler says where it was."""
    for sent, wait_s in ((signal.SIGABRT, 2), (signal.SIGKILL, 0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
        time.sleep(wait_s)


def reason(output: str) -> str:
    """Return the last line that names an error, with the next after a colon; else the last line."""
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
    """The exit code; 0 for one that was killed since the file was there, None: out of time.

    Args:
        log: takes all that it says.
        variables: more of its environment.
        ends_when: a file after whose appearance it is killed, with all that it has started.
        grace_s: how long it may take to end by itself then.
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
