from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from quarry.runtime import provenance
from quarry.runtime.provenance import collect_provenance, is_secret, scrub, scrub_argument

SECRETS = [
    "api_key",
    "apikey",
    "hf_token",
    "wandb.api_key",
    "WANDB_API_KEY",
    "x-api-key",
    "token",
    "access_token",
    "github_token",
    "hub-token",
    "secret",
    "client_secret",
    "secret_key",
    "aws_secret_access_key",
    "private_key",
    "db.password",
    "passwd",
    "credentials",
]
HARMLESS = [
    "end_token",
    "prompt.end_token",
    "max_tokens_per_batch",
    "tokens",
    "num_tokens",
    "tokenizer",
    "tokenizers",
    "last_token_pooling",
    "key",
    "keyboard",
    "monkey",
    "query",
    "secretary",
    "password_length",
    "eos_token_id",
    "prompt.end_token",
    "begin_token",
]


@pytest.mark.parametrize("key", SECRETS)
def test_secrets_are_known_by_their_key(key: str) -> None:
    assert is_secret(key)
    assert scrub_argument(f"{key}=hunter2") == f"{key}=***"
    assert scrub({"a": [{key: "hunter2"}]}) == {"a": [{key: "***"}]}


@pytest.mark.parametrize("key", HARMLESS)
def test_what_only_sounds_like_a_secret_is_kept(key: str) -> None:
    assert not is_secret(key)
    assert scrub_argument(f"{key}=16384") == f"{key}=16384"
    assert scrub({key: 16384}) == {key: 16384}


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("+logger.wandb.api_key=abc=def", "+logger.wandb.api_key=***"),
        ("settings={api_key:abc}", "settings={api_key:***}"),
        ("settings={a:1, hf_token: abc, b:[2]}", "settings={a:1, hf_token: ***, b:[2]}"),
        ("data.path=/data/token=1/x", "data.path=/data/token=1/x"),
        ("model/pooling=last_token", "model/pooling=last_token"),
        ("--multirun", "--multirun"),
        ("token", "token"),
    ],
)
def test_arguments_keep_their_form(argument: str, expected: str) -> None:
    assert scrub_argument(argument) == expected


def test_scrub_copies_and_keeps_what_is_empty() -> None:
    config = {"wandb": {"api_key": "abc", "password": None, "token": ""}, "list": [1, ["a"]]}
    scrubbed = scrub(config)
    assert scrubbed == {
        "wandb": {"api_key": "***", "password": None, "token": ""},
        "list": [1, ["a"]],
    }
    assert config["wandb"] == {"api_key": "abc", "password": None, "token": ""}


def test_secret_groups_are_hidden_whole() -> None:
    assert scrub({"credentials": {"user": "me", "word": "x"}}) == {"credentials": "***"}


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
