"""Starts a script in several processes that find one another as under torchrun."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def run_processes(script: Path, *arguments: str, num_processes: int, timeout_s: float) -> None:
    """Runs `python SCRIPT ARGUMENTS...` in each process; all have ended well, or it fails.

    The output of all goes to the failure's message. Whatever happens, no process is left.
    """
    common = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(num_processes),
        "LOCAL_WORLD_SIZE": str(num_processes),
        "GROUP_RANK": "0",
        "TORCHELASTIC_RUN_ID": "test",
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), *arguments],
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(num_processes)
    ]
    deadline = time.monotonic() + timeout_s
    try:
        while any(process.poll() is None for process in processes):
            has_failed = any(process.poll() not in (None, 0) for process in processes)
            if has_failed or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        codes = [process.poll() for process in processes]
    finally:
        for process in processes:
            process.kill()
    outputs = [process.communicate()[0] for process in processes]
    report = "\n".join(f"--- rank {rank}\n{text[-6000:]}" for rank, text in enumerate(outputs))
    assert codes == [0] * num_processes, f"exit codes {codes} (None: out of time)\n{report}"
