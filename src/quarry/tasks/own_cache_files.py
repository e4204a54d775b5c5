"""Recognize Quarry's own files in the folders of the cache, where a user may keep others, too."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from quarry.data.arrow_table import LINE, ArrowTable
from quarry.models.backbones.fingerprint import notes_of
from quarry.retrieval.store.shelf import CONTRACT
from quarry.stand_ins.made_folder import WEIGHTS

_ARROW_MAGIC = b"ARROW1"
_INDEX = ".ids.npy"


def matching(root: Path, patterns: Iterable[str]) -> Iterator[Path]:
    """Yield the files and folders below `root` whose names are as in `patterns`, sorted.

    Args:
        patterns: a folder (empty: `root` itself), and the regular expression of a complete name.
    """
    for pattern in patterns:
        folder, _, name = pattern.rpartition("/")
        for path in sorted((root / folder).glob("*")):
            if re.fullmatch(name, path.name):
                yield path


def all_of(paths: Sequence[Path]) -> list[Path]:
    """Return all: their names alone say that they are Quarry's."""
    return list(paths)


def tables(paths: Sequence[Path]) -> list[Path]:
    """Return those that `open_table` wrote, damaged ones among them."""
    return [path for path in paths if _is_table(path)]


def stores(paths: Sequence[Path]) -> list[Path]:
    """Return the folders whose contract names the weights, as that of every shelf does."""
    return [path for path in paths if weights_in_contract(path) is not None]


def model_folders(paths: Sequence[Path]) -> list[Path]:
    """Return the folders with weights."""
    return [path for path in paths if (path / WEIGHTS).is_file()]


def leftovers(paths: Sequence[Path]) -> list[Path]:
    """Return unfinished files; leave out an id index (*.ids.npy) that still belongs to a table."""
    return [path for path in paths if not _is_index(path) or _is_without_table(path)]


def unneeded_notes(paths: Sequence[Path]) -> list[Path]:
    """Return the hashes of files that are of no store's model; none while one is of the hub."""
    if not paths:
        return []
    needed: set[Path] = set()
    memo = paths[0].parent
    for store in stores(sorted(memo.parent.glob("*/"))):
        for model in _models_of(store):
            if not model.is_absolute():  # its files are not looked for
                return []
            needed |= notes_of(model, memo=memo)
    return [path for path in paths if path not in needed]


def weights_in_contract(store: Path) -> list[str] | None:
    """Return the digests of the weights that a store belongs to; None: it is no store."""
    contract = _read_json(store / CONTRACT)
    weights = contract.get("weights") if isinstance(contract, dict) else None
    return weights if isinstance(weights, list) else None


def model_of_store(store: Path) -> str | None:
    """Return the folder or hub id of the model that made the embeddings, if it is recorded."""
    for manifest in sorted(store.glob("*/manifest.json")):
        try:
            return str(_read_json(manifest)["made_by"]["model"])
        except (KeyError, TypeError):
            return None
    return None


def _models_of(store: Path) -> list[Path]:
    """Return the model of a store, and the one below its adapter."""
    model = model_of_store(store)
    if model is None:
        return []
    adapter = _read_json(Path(model) / "adapter_config.json")
    base = adapter.get("base_model_name_or_path") if isinstance(adapter, dict) else None
    return [Path(model), *([Path(base)] if isinstance(base, str) else [])]


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _is_table(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            if file.read(len(_ARROW_MAGIC)) != _ARROW_MAGIC:
                return False
    except OSError:
        return False
    try:
        return LINE in ArrowTable(path, is_used=False).schema.names
    except (OSError, ValueError):  # truncated
        return True


def _is_index(path: Path) -> bool:
    return path.name.removesuffix(".tmp").endswith(_INDEX)


def _is_without_table(index: Path) -> bool:
    stem = index.name.removesuffix(".tmp").removesuffix(_INDEX)
    if stem.startswith("."):
        return not index.with_name(f"{stem}.tmp").exists()
    # in this order: a build installs the index before it renames its temporary table
    if any(index.parent.glob(f".{stem}.arrow.*.tmp")):
        return False
    return not index.with_name(f"{stem}.arrow").exists()
