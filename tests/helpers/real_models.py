"""Real models that make targets put into the cache."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def cached_model(name: str, *, target: str) -> Path:
    """The folder of a model that `make TARGET` fetches; without it the test is skipped."""
    cache = os.environ.get("QUARRY_CACHE") or "~/.cache/quarry"
    folder = Path(cache).expanduser() / "models" / name
    if not (folder / "model.safetensors").exists():
        pytest.skip(f"no {name} at {folder}: make {target} fetches it")
    return folder
