"""Finds single files of a model, in its folder or in the hub's cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from quarry.errors import UserError
from quarry.runtime.hub import settle_offline


def model_file(source: str, name: str, *, revision: str | None = None) -> Path | None:
    """Return the path of a file of a model; None where the model has no such file.

    A file of a hub id is downloaded into the hub's cache if it is not there and the hub answers.

    Args:
        source: a folder or a hub id.
        name: of the file, relative to the folder ("1_Pooling/config.json").
        revision: of a hub id: branch, tag or commit.
    """
    if Path(source).is_dir():
        file = Path(source) / name
        return file if file.is_file() else None
    settle_offline()
    folder, _, base = name.rpartition("/")
    found = cached_file(
        source,
        base,
        subfolder=folder,
        revision=revision,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if found is None else Path(found)


def read_json(file: Path) -> dict[str, Any]:
    """Return the object of a JSON file.

    Raises:
        UserError: the file holds no JSON, or no object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: not valid JSON ({error}). Restore the file.") from error
    if not isinstance(content, dict):
        raise UserError(f"{file}: must hold a JSON object, found {type(content).__name__}.")
    return content
