from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from quarry.config.resolvers import (
    hub_id,
    is_terminal,
    register_resolvers,
    run_dir,
    wandb_offline,
)

KEY = "login user password 0123456789012345678901234567890123456789\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and no word of W&B in the environment."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_wandb_is_offline_without_a_key(home: Path) -> None:
    assert wandb_offline() is True


def test_wandb_is_online_with_a_key_in_the_environment(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert wandb_offline() is False


@pytest.mark.parametrize(
    ("mode", "expected"), [("offline", True), ("disabled", True), ("online", False)]
)
def test_wandb_mode_has_the_last_word(
    home: Path, monkeypatch: pytest.MonkeyPatch, mode: str, expected: bool
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_MODE", mode)
    assert wandb_offline() is expected


def test_wandb_key_in_netrc_counts_for_its_own_server(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".netrc").write_text(f"machine wandb.example.org {KEY}")
    assert wandb_offline() is True
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org/")
    assert wandb_offline() is False
    (home / ".netrc").write_text(f"machine api.wandb.ai {KEY}")
    assert wandb_offline() is True
    monkeypatch.delenv("WANDB_BASE_URL")
    assert wandb_offline() is False


def test_wandb_key_in_a_netrc_elsewhere(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "keys").write_text(f"machine api.wandb.ai {KEY}")
    monkeypatch.setenv("NETRC", "~/keys")
    assert wandb_offline() is False


def test_unreadable_netrc_is_no_key(home: Path) -> None:
    (home / ".netrc").write_text("machine api.wandb.ai logn user\n")
    assert wandb_offline() is True


def test_run_directory_outside_a_run_is_a_placeholder() -> None:
    assert run_dir() == "RUN_DIR"


def test_resolvers_are_registered_under_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    register_resolvers()
    register_resolvers()  # both entry points may live in one process
    config = OmegaConf.create({"a": "${run_dir:}", "c": "${is_terminal:}"})
    assert OmegaConf.to_container(config, resolve=True) == {
        "a": "RUN_DIR",
        "c": is_terminal(),
    }


def test_a_size_means_a_hub_id_and_tiny_means_none() -> None:
    hub_ids = {"1.5B": "Qwen/Qwen2.5-Math-1.5B", "7B": "Qwen/Qwen2.5-Math-7B"}
    assert hub_id("1.5B", hub_ids) == "Qwen/Qwen2.5-Math-1.5B"
    assert hub_id("tiny", hub_ids) is None


@pytest.mark.parametrize("size", ["9B", "7b", "", "Tiny"])
def test_a_size_that_was_never_published_is_refused_with_those_that_were(size: str) -> None:
    with pytest.raises(ValueError, match=r"never published; there are 1\.5B, 7B and tiny"):
        hub_id(size, {"1.5B": "a", "7B": "b"})


@pytest.mark.parametrize("size", ["tiny", "huge", "Base"])
def test_a_family_without_a_replica_has_no_tiny(size: str) -> None:
    hub_ids = {"small": "a", "base": "b"}
    assert hub_id("base", hub_ids, False) == "b"
    with pytest.raises(ValueError, match=rf"model\.size={size} .*there are small, base\. Fix"):
        hub_id(size, hub_ids, False)
