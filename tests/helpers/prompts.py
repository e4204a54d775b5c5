"""Prompts of conf/prompt without Hydra."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from quarry.data.prompts import Prompt

CONF = Path(__file__).resolve().parents[2] / "conf" / "prompt"
NAMES = tuple(sorted(path.stem for path in CONF.glob("*.yaml")))


def promptreps() -> Prompt:
    """What conf/prompt/promptreps.yaml says."""
    return prompt("promptreps")


def prompt(name: str) -> Prompt:
    """What a file of conf/prompt says, with the one that it extends."""
    settings = _settings(name)
    names = {field.name for field in fields(Prompt)}
    return Prompt(**{key: settings[key] for key in names if key in settings})


def _settings(name: str) -> dict[str, Any]:
    settings = yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))
    extended = [_settings(each) for each in settings.pop("defaults", [])]
    return {key: value for part in (*extended, settings) for key, value in part.items()}
