"""examples/, executed as a user would."""

from __future__ import annotations

import re
from pathlib import Path

from helpers.commands import quiet_environment, run_command


def test_train_evaluate_search(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run_command(
        "examples/train_evaluate_search.py",
        str(out),
        environment=quiet_environment(tmp_path),
        timeout_s=280,
    )
    assert result.code == 0, result.err
    assert {path.name for path in out.iterdir()} == {"data", "run", "evaluation"}
    assert re.search(r"^nDCG@10 bm25=0\.\d{4} dense=0\.\d{4}$", result.out, re.MULTILINE)
    hits = re.findall(r"^  (-?\d\.\d{3})  [\w.]+:[\w.]+$", result.out, re.MULTILINE)
    assert len(hits) == 2 * 3
    assert hits[:3] == sorted(hits[:3], key=float, reverse=True)
