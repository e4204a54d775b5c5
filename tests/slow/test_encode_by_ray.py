"""Workers of Ray that are killed at random lose nothing, and change no bit."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from helpers.commands import ROOT


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_ten_kills_of_workers_change_nothing() -> None:
    """A short one of `make storm-encode`, whose results are in docs/use.md."""
    pytest.importorskip("ray", reason="the extra ray is not installed")
    process = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "storm" / "encode_kills.py"), "--kills", "10",
         "--texts", "4000", "--block-size", "800", "--minutes", "7"],
        capture_output=True, text=True, timeout=480, check=False,
    )  # fmt: skip
    lines = [line for line in process.stdout.splitlines() if line.startswith("{")]
    assert lines, process.stderr[-2000:]
    record = json.loads(lines[-1])
    assert record["failures"] == []
    assert record["num_kills"] >= 10
    assert record["kills"].get("encode", 0) >= 3
    assert process.returncode == 0
