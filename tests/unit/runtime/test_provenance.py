from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from quarry.runtime import provenance
from quarry.runtime.provenance import collect_provenance


def test_provenance_is_plain_and_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/deep/down/train.py", "seed=1", "+wandb.api_key=hunter2"])
    monkeypatch.setenv("WANDB_API_KEY", "hunter3")
    found = collect_provenance()
    assert found["command"] == ["train.py", "seed=1", "+wandb.api_key=***"]
    assert found["packages"]["torch"].startswith("2.")
    assert found["hardware"]["num_threads"] >= 1
    text = json.dumps(found)
    assert "hunter" not in text
    assert "/deep/down" not in text


def test_a_package_that_is_not_there_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "PACKAGES", ("torch", "no-such-package"))
    assert collect_provenance()["packages"]["no-such-package"] is None


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose one file is the module, as far as it knows."""
    if shutil.which("git") is None:
        pytest.skip("no git")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    for name in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{name}_NAME", "a")
        monkeypatch.setenv(f"{name}_EMAIL", "a@example.org")
    (tmp_path / "provenance.py").write_text("one\n")
    _git(tmp_path, "init", "--quiet")
    _git(tmp_path, "commit", "--quiet", "--allow-empty", "--message=empty")
    return tmp_path


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_commit_and_changes_of_the_checkout(checkout: Path) -> None:
    _git(checkout, "add", ".")
    _git(checkout, "commit", "--quiet", "--message=one")
    commit = _git(checkout, "rev-parse", "HEAD")
    assert collect_provenance()["git"] == {"commit": commit, "is_dirty": False}
    (checkout / "provenance.py").write_text("two\n")
    assert collect_provenance()["git"] == {"commit": commit, "is_dirty": True}


def test_the_checkout_of_another_project_is_not_ours(checkout: Path) -> None:
    """As in a virtual environment that lies inside the user's own repository."""
    assert collect_provenance()["git"] is None


def test_no_checkout_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    assert collect_provenance()["git"] is None
