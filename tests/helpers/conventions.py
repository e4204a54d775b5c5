"""The conventions of conf/, as objects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from quarry.evaluation.convention import Convention

FOLDER = Path(__file__).resolve().parents[2] / "conf" / "convention"
NAMES = ("beir", "mteb", "coir", "pyserini", "study")


def convention(name: str = "beir", **changes: Any) -> Convention:
    """The convention of that file, with some rules changed."""
    values = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    assert values.pop("_target_") == "quarry.evaluation.convention.Convention"
    return replace(Convention(**values), **changes)
