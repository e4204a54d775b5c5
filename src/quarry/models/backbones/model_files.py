"""Find and read single files of a model, in its folder or in the hub's cache."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from quarry.errors import UserError
from quarry.runtime.hub_access import settle_offline


def model_file(source: str, name: str, *, revision: str | None = None) -> Path | None:
    """Return the path of a file of a model; None if the model has no such file.

    A file of a hub id is downloaded into the hub's cache if it is missing there. Return None, too,
    for a repository that is not available: loading its weights raises the error.

    Args:
        source: a folder or a hub id.
        name: path of the file, relative to the folder ("1_Pooling/config.json").
        revision: branch, tag or commit of a hub id.

    Raises:
        UserError: the request to the hub failed, so it is unknown whether there is such a file.
    """
    if Path(source).is_dir():
        file = Path(source) / name
        return file if file.is_file() else None
    settle_offline()
    return _hub_file(
        source,
        name,
        revision,
        cache_dir=str(constants.HF_HUB_CACHE),
        is_offline=bool(constants.HF_HUB_OFFLINE),
    )


@lru_cache(maxsize=256)  # each call would send a request to the hub
def _hub_file(
    source: str, name: str, revision: str | None, *, cache_dir: str, is_offline: bool
) -> Path | None:
    try:
        return Path(
            hf_hub_download(
                source,
                name,
                revision=revision,
                cache_dir=cache_dir,
                local_files_only=is_offline,
            )
        )
    except LocalEntryNotFoundError as error:
        if is_offline:
            return None
        raise _unknown(source, name, error) from error
    except (
        EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError, HFValidationError
    ):  # fmt: skip
        return None
    except (HfHubHTTPError, OSError) as error:
        raise _unknown(source, name, error) from error


def is_unknown(source: str, name: str, *, revision: str | None = None) -> bool:
    """Return whether, offline, the hub's cache cannot tell if a hub id has a file."""
    if Path(source).is_dir() or not constants.HF_HUB_OFFLINE:
        return False
    try:
        return try_to_load_from_cache(source, name, revision=revision) is None
    except HFValidationError:
        return False


def _unknown(source: str, name: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200]
    return UserError(
        f"The hub could not say whether {source} has a file {name} ({reason}). Fix: try again, or "
        "download the model and give model.path=DIR."
    )


def read_json(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        UserError: the file is not JSON, or holds no object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: not valid JSON ({error}). Restore the file.") from error
    if not isinstance(content, dict):
        raise UserError(f"{file}: must hold a JSON object, found {type(content).__name__}.")
    return content
