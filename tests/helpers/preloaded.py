"""A Python that has imported the libraries of others already, and forks for each script to run.

Those imports are most of what a small command costs. Quarry itself is imported after the fork, and
a script ends as Python ends: it is the command that a user types, but for some seconds.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

LIBRARIES = (
    "hydra", "omegaconf", "torch", "pytorch_lightning", "transformers.models.auto", "peft",
    "deepspeed", "matplotlib.pyplot", "pyarrow", "safetensors.torch",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Script:
    """What one forked process runs.

    Attributes:
        arguments: the script's path, and what follows it.
        environment: all of it; PYTHONPATH comes before the paths of the server's.
        folder: the working directory.
        out: file for the output.
        err: file for the errors; may be the same.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str]
    folder: str
    out: str
    err: str


class PreloadedPython:
    """The server of forks. To be closed.

    Args:
        environment: of its imports.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._stream = self._socket.makefile("rw")

    def run(self, *scripts: Script, timeout_s: float) -> list[int | None]:
        """Run scripts at once and return their exit codes as `subprocess` gives them.

        None: it was killed, because the time was over or another one had failed.
        """
        request = {"scripts": [asdict(script) for script in scripts], "timeout_s": timeout_s}
        self._stream.write(json.dumps(request) + "\n")
        self._stream.flush()
        codes: list[int | None] = json.loads(self._stream.readline())
        return codes

    @property
    def pid(self) -> int:
        """Return the process id of the server."""
        return self._process.pid

    def close(self) -> None:
        self._stream.close()
        self._socket.close()
        self._process.kill()  # it has nothing to tidy, and would look through all that it imported
        self._process.wait()


def next_script(stream: IO[str]) -> Script | None:
    """Answer requests until there are no more; in a forked process, return what it is to run."""
    while line := stream.readline():
        request = json.loads(line)
        processes: list[int] = []
        for script in request["scripts"]:
            process = os.fork()
            if process == 0:
                return Script(**script)
            processes.append(process)
        codes = _exit_codes(processes, timeout_s=request["timeout_s"])
        stream.write(json.dumps(codes) + "\n")
        stream.flush()
    return None


def _exit_codes(processes: Sequence[int], *, timeout_s: float) -> list[int | None]:
    deadline = time.monotonic() + timeout_s
    codes: dict[int, int] = {}
    while len(codes) < len(processes) and not any(codes.values()) and time.monotonic() < deadline:
        time.sleep(0.01)
        for process in set(processes) - codes.keys():
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                codes[process] = os.waitstatus_to_exitcode(status)
    for process in set(processes) - codes.keys():
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    return [codes.get(process) for process in processes]


def _redirect(path: str, descriptor: int) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, descriptor)
    os.close(file)


def main(stream: IO[str]) -> None:
    """Import, serve, and run a script in each fork, as Python does that is given its path."""
    sys.path.pop(0)  # modules beside this file are called as libraries are
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.freeze()  # no collection looks at the libraries, or copies their pages by that
    script = next_script(stream)
    stream.close()
    if script is None:
        return
    _redirect(script.out, 1)
    _redirect(script.err, 2)
    os.chdir(script.folder)
    os.environ.clear()
    os.environ.update(script.environment)
    sys.argv[:] = script.arguments
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [str(Path(sys.argv[0]).parent), *filter(None, paths)]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as _socket:
        _stream = _socket.makefile("rw")
    main(_stream)
