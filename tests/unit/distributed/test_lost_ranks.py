from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import pytest
from pytorch_lightning.strategies.launchers import subprocess_script

from quarry.distributed import lost_ranks
from quarry.distributed.lost_ranks import ended_rank, lost_rank, watches_children
from quarry.errors import LostRankError

CLOSED = RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]")


def ended(code: str) -> subprocess.Popen[bytes]:
    child = subprocess.Popen([sys.executable, "-S", "-c", code])
    child.wait()
    return child


FINE, FAILED, KILLED = "", "raise SystemExit(2)", "import os; os.kill(os.getpid(), 9)"


def test_the_child_that_a_signal_ended_is_named_before_those_that_followed_it() -> None:
    fine, failed, killed = map(ended, (FINE, FAILED, KILLED))
    assert ended_rank([]) is None
    assert ended_rank([fine]) is None
    assert "Rank 2 of this node has ended with code 2" in str(ended_rank([fine, failed]))
    assert "Rank 3 of this node was ended by SIGKILL" in str(ended_rank([fine, failed, killed]))
    assert "Rank 1 of this node was ended by SIGKILL" in str(lost_rank(CLOSED, [killed, failed]))


def test_an_error_of_ones_own_stays() -> None:
    assert lost_rank(RuntimeError("shapes differ"), [ended(KILLED)]) is None
    assert lost_rank(ValueError("Connection closed by peer"), []) is None
    assert isinstance(lost_rank(CLOSED, []), LostRankError)  # a rank of another launcher or node


def test_a_process_that_does_not_notice_is_ended_with_a_message(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(lost_ranks, "HANG_S", 0.1)
    monkeypatch.setattr(lost_ranks, "POLL_S", 0.05)
    monkeypatch.setattr("os._exit", codes.append)
    launcher: Any = subprocess_script
    observer = launcher._launch_process_observer
    children = [
        ended(KILLED),
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]),
    ]
    deadline = time.monotonic() + 20
    with watches_children(lambda: children):
        assert launcher._launch_process_observer is not observer
        while not codes and time.monotonic() < deadline:
            time.sleep(0.02)
    assert launcher._launch_process_observer is observer
    assert codes == [1]
    assert "Error: Rank 1 of this node was ended by SIGKILL" in capfd.readouterr().err
    assert children[1].wait(timeout=20) < 0


@pytest.mark.parametrize(
    ("message", "is_lost"),
    [
        ("[gloo/transport/tcp/pair.cc:547] Connection reset by peer", True),
        ("[gloo/transport/tcp/pair.cc:290] writev: Broken pipe", True),
        ("[gloo/transport/tcp/pair.cc:456] op.preamble.length <= op.nbytes. 8 vs 4", False),
        ("[gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 1800000ms for recv", False),
    ],
)
def test_an_error_of_gloo_is_a_lost_rank_only_where_a_connection_ended(
    message: str, is_lost: bool
) -> None:
    assert (lost_rank(RuntimeError(message), []) is not None) == is_lost


def test_a_signal_without_a_name_is_told_by_its_number() -> None:
    child = ended("import os; os.kill(os.getpid(), 40)")
    assert "Rank 1 of this node was ended by signal 40." in str(ended_rank([child]))
