"""A wheel has the files of the checkout, not those of an earlier build."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_files_of_an_earlier_build_do_not_travel(tmp_path: Path) -> None:
    shutil.copy(ROOT / "setup.py", tmp_path)
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "quarry-retrieval"\nversion = "1"\n'
        '[tool.setuptools.packages.find]\nwhere = ["src"]\n'
    )
    current = ["src/quarry/__init__.py", "conf/a.yaml", "sweeps/b.yaml", "docs/performance.json"]
    for name in current:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    built = tmp_path / "build" / "lib" / "quarry"
    for name in ("stale.py", "stale/__init__.py", "conf/stale.yaml"):
        (built / name).parent.mkdir(parents=True, exist_ok=True)
        (built / name).write_text("")
    command = [sys.executable, "setup.py", "--quiet", "build_py"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    found = {path.relative_to(built).as_posix() for path in built.rglob("*") if path.is_file()}
    assert found == {"__init__.py", "conf/a.yaml", "sweeps/b.yaml", "docs/performance.json"}
