"""`python eval.py task=score`: rankings of others on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.commands import Result

Run = Callable[..., Result]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Judgements, and a run of each form."""
    (tmp_path / "tiny.qrels").write_text("1 0 d1 1\n2 0 d2 1\n")
    (tmp_path / "tiny.a.trec").write_text("1 Q0 d1 1 9 sys\n2 Q0 d3 1 9 sys\n2 Q0 d2 2 8 sys\n")
    (tmp_path / "tiny.b.tsv").write_text("1\td3\t1\n1\td1\t2\n2\td3\t1\n")
    return tmp_path


def test_runs_are_compared_and_the_last_line_is_for_programs(command: Run, files: Path) -> None:
    run = files / "run"
    result = command(
        "eval.py", "task=score", f"task.runs=[{files}/tiny.*.t*]", "hydra.run.dir=" + str(run),
        f"task.qrels={files / 'tiny.qrels'}",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert result.last_line == "nDCG@10 a=0.8155 b=0.3155"
    rows = [line.split() for line in result.out.splitlines()]
    assert ["a", "0.8155", "1.0000", "0.7500"] in rows
    assert ["a", "b", "tiny", "+0.5000", "0.5000", "0.5000", "2"] in rows
    assert "b: judged queries without a ranking" not in result.err
    assert "its rule for titles has no effect" in result.err
    assert (run / "score.json").is_file()
