"""Starts a script in several processes that find one another as under torchrun."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from pathlib import Path

from helpers.preloaded import PreloadedPython, Script


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def run_processes(
    python: PreloadedPython, script: Path, *arguments: str, num_processes: int, timeout_s: float
) -> None:
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
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, str(rank)) for rank in range(num_processes)]
        scripts = [
            Script(
                arguments=[str(script), *arguments],
                environment=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                folder=folder,
                out=str(output),
                err=str(output),
            )
            for rank, output in enumerate(outputs)
        ]
        codes = python.run(*scripts, timeout_s=timeout_s)
        texts = [output.read_text(encoding="utf-8", errors="replace") for output in outputs]
    report = "\n".join(f"--- rank {rank}\n{text[-6000:]}" for rank, text in enumerate(texts))
    assert codes == [0] * num_processes, f"exit codes {codes} (None: out of time)\n{report}"
