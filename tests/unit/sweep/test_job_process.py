from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from quarry.distributed.launch import ENDS_WITH, environment_of_a_job
from quarry.sweep import job_process
from quarry.sweep.job_process import EndedProcess, run_process

pytestmark = pytest.mark.timeout(60)

WAITING = "from quarry.distributed.launch import settle_launcher; settle_launcher(); import time; "


def run_python(code: str, **environment: str) -> EndedProcess:
    return run_process([sys.executable, "-c", code], environment=environment)


def appeared(path: Path) -> int:
    """The number in a file, once it is there."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if path.exists() and path.read_text():
            return int(path.read_text())
        time.sleep(0.02)
    raise AssertionError(f"{path} did not appear")


def is_gone(pid: int) -> bool:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_the_error_is_the_message_of_an_error_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    said = r"warning\n\nError: loss=x: none.\nChoose one.\n"
    ended = run_python(f"import sys; sys.stderr.write('{said}'); sys.exit(2)")
    assert (ended.code, ended.error) == (2, "loss=x: none.\nChoose one.")
    assert "warning" in capsys.readouterr().err


def test_the_error_is_else_the_last_line() -> None:
    ended = run_python("1 / 0")
    assert (ended.code, ended.error) == (1, "ZeroDivisionError: division by zero")
    assert "Traceback" in ended.tail


def test_a_signal_is_named() -> None:
    ended = run_python("import os; os.kill(os.getpid(), 9)")
    assert ended.error == "ended by signal 9 (SIGKILL)"
    assert run_python("import sys; sys.exit(3)").error == "exit code 3, and nothing was said"


def test_nothing_of_a_launcher_reaches_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("LOCAL_RANK", "RANK", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "SLURM_NTASKS")
    for name in names:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("KEPT", "1")
    assert "KEPT" in environment_of_a_job()
    code = f"import os, sys; sys.exit(any(n in os.environ for n in {names}))"
    assert run_python(code).code == 0


def test_what_a_job_leaves_behind_is_ended(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    code = (
        "import subprocess, sys, pathlib\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'])\n"
        f"pathlib.Path({str(file)!r}).write_text(str(child.pid))"
    )
    assert run_python(code).code == 0
    assert is_gone(appeared(file))


def test_a_signal_is_passed_on_and_a_second_one_ends_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "pid"
    code = (
        "import os, pathlib, signal, time\n"
        "signal.signal(signal.SIGINT, lambda *_: {})\n"
        f"pathlib.Path({str(file)!r}).write_text(str(os.getpid()))\n"
        "time.sleep(100)"
    )

    def stop(action: str) -> None:
        appeared(file)
        os.kill(os.getpid(), signal.SIGTERM)
        if action == "twice":
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, args=["once"]).start()
    ended = run_python(code.format("exit(7)"))
    assert (ended.code, ended.stopped_by) == (7, "SIGTERM")
    file.unlink()
    threading.Thread(target=stop, args=["twice"]).start()
    ended = run_python(code.format("None"))
    assert (ended.code, ended.stopped_by) == (-9, "SIGTERM")
    file.unlink()
    monkeypatch.setattr(job_process, "GRACE_S", 0.5)
    threading.Thread(target=stop, args=["once"]).start()
    assert run_python(code.format("None")).code == -9


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel has to tell the job")
def test_a_job_does_not_outlive_its_sweep(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    job = WAITING + (
        f"import os, pathlib; assert {ENDS_WITH!r} not in os.environ; "
        f"pathlib.Path({str(file)!r}).write_text(str(os.getpid())); time.sleep(100)"
    )
    sweep = (
        "import sys\nfrom quarry.sweep.job_process import run_process\n"
        f"run_process([sys.executable, '-c', {job!r}], environment={{}})"
    )
    process = subprocess.Popen([sys.executable, "-c", sweep])
    pid = appeared(file)
    process.kill()
    process.wait()
    assert is_gone(pid)


def test_a_job_that_came_too_late_ends_at_once() -> None:
    environment = os.environ | {ENDS_WITH: "1"}  # not what has started it
    process = subprocess.run(
        [sys.executable, "-c", WAITING + "time.sleep(100)"], env=environment, check=False
    )
    assert process.returncode == -9


def test_an_exception_in_the_waiting_process_lets_the_job_save_itself(tmp_path: Path) -> None:
    """So does submitit say that the time of a job is over."""
    pid, saved = tmp_path / "pid", tmp_path / "saved"
    code = (
        "import os, pathlib, signal, time\n"
        "def save(*_):\n"
        "    time.sleep(0.5)\n"
        f"    pathlib.Path({str(saved)!r}).write_text('1')\n"
        "    exit(130)\n"
        "signal.signal(signal.SIGINT, save)\n"
        f"pathlib.Path({str(pid)!r}).write_text(str(os.getpid()))\n"
        "time.sleep(100)"
    )

    def time_is_over(*_: object) -> None:
        raise RuntimeError("time is over")

    def send() -> None:
        appeared(pid)
        os.kill(os.getpid(), signal.SIGUSR2)

    old = signal.signal(signal.SIGUSR2, time_is_over)
    try:
        threading.Thread(target=send).start()
        with pytest.raises(RuntimeError, match="time is over"):
            run_python(code)
    finally:
        signal.signal(signal.SIGUSR2, old)
    assert saved.read_text() == "1"
    assert is_gone(appeared(pid))
