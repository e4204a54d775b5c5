"""examples/search_my_code.py, executed as a user would, on a folder of Quarry's source."""

from __future__ import annotations

from pathlib import Path

from helpers.commands import quiet_environment, run_command

ROOT = Path(__file__).resolve().parents[2]


def test_search_my_code(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run_command(
        "examples/search_my_code.py",
        str(out),
        "merge top k of several shards",
        "--source",
        str(ROOT / "src" / "quarry" / "retrieval" / "index"),
        environment=quiet_environment(tmp_path),
        timeout_s=280,
    )
    assert result.code == 0, result.err
    assert {path.name for path in out.iterdir()} == {"run", "index"}
    assert "index documents=" in result.out
    assert "top_k.py" in result.out
