"""Choose the overrides that say which model a command uses, to repeat them in a later one.

They are stored in folders that others may have made. So only options that are shipped, and plain
values of keys of the model, are repeated: nothing that names code.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from quarry.config.options import options_of_groups
from quarry.runtime.override_text import key_of, quoted

GROUPS = ("model", "prompt", "model/pooling", "model/adapter")
KEYS = re.compile(r"(model|prompt)(\.[a-z][a-z_]*)+|trainer\.precision")
NOT_REPEATED = ("model.trust_remote_code",)
FOLDERS = ("model.path", "model.base_path", "model.tokenizer_path")
NEW_MODEL = ("model", "model.path")
"""With one of them a command has a model of its own."""

_CODE = re.compile(r"_target_|\$\{|^\s*[\[{]")


def own_overrides() -> list[str]:
    """Return this command's overrides; none outside of a command."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def is_of_model(override: str) -> bool:
    """Return whether an override is about the model: its node, prompt or precision."""
    key = key_of(override)
    return key in GROUPS or KEYS.fullmatch(key) is not None


def repeatable(overrides: Sequence[str]) -> list[str]:
    """Return those overrides that choose a model by shipped options and plain values alone.

    Names of folders become absolute.
    """
    return [_absolute(each) for each in overrides if is_of_model(each) and _is_plain(each)]


def with_stored_model(own: Sequence[str], stored: Sequence[str]) -> list[str]:
    """Return the overrides of a command: its own model, or the stored one with its own changes.

    Args:
        own: of the command, about the model.
        stored: as read from a folder; what is not repeatable is left out.
    """
    if any(key_of(each) in NEW_MODEL for each in own):
        return list(own)
    changed = {key_of(each) for each in own}
    return [*(each for each in repeatable(stored) if key_of(each) not in changed), *own]


def _is_plain(override: str) -> bool:
    key, _, value = override.partition("=")
    if key in GROUPS:
        return value in options_of_groups().get(key, ())
    return key not in NOT_REPEATED and key_of(override) == key and not _CODE.search(value)


def _absolute(override: str) -> str:
    key, _, value = override.partition("=")
    path = Path(value.strip("'\"")).expanduser()
    is_here = key in FOLDERS and not path.is_absolute() and path.exists()
    return f"{key}={quoted(str(path.absolute()))}" if is_here else override
