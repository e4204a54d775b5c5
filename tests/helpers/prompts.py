"""Prompts of conf/prompt without Hydra."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import yaml

from quarry.data.prompts import Prompt

CONF = Path(__file__).resolve().parents[2] / "conf" / "prompt"


def promptreps() -> Prompt:
    """What conf/prompt/promptreps.yaml says."""
    both = [yaml.safe_load((CONF / f"{name}.yaml").read_text()) for name in ("none", "promptreps")]
    settings = both[0] | both[1]
    names = {field.name for field in fields(Prompt)}
    return Prompt(**{name: settings[name] for name in names if name in settings})
