"""A Hugging Face cache that is laid out by hand, as a download would have left it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants
from transformers.utils import hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def use_cache(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Make `cache` the hub's, and the network out of reach."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.setattr(constants, name, str(cache), raising=False)
    for name in ("TRANSFORMERS_CACHE", "PYTORCH_TRANSFORMERS_CACHE", "HF_HUB_CACHE"):
        monkeypatch.setattr(hub, name, str(cache), raising=False)


def put_into_cache(
    cache: Path, hub_id: str, folder: Path, *, commit: str = COMMIT, ref: str = "main"
) -> Path:
    """Put a folder's files into the cache as a commit of a hub id, which `ref` then means."""
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit
    shutil.copytree(folder, snapshot)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / ref).write_text(commit, encoding="utf-8")
    return snapshot
