"""Prepare a folder for the Hugging Face hub, and upload it if there is a token."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_token
from omegaconf import DictConfig

from quarry.assembly.saving import consolidate_if_unfinished
from quarry.assembly.stored_model import StoredModel, open_stored_model
from quarry.config.overrides import refuse_other_overrides, warn_of_run_directory
from quarry.config.stored_targets import trusted_packages
from quarry.config.validation import validate_task
from quarry.errors import UserError
from quarry.models.backbones.fingerprint import weights_fingerprint
from quarry.models.dtypes import DTYPES
from quarry.models.saved import read_contract
from quarry.retrieval.export.card_facts import CardFacts
from quarry.retrieval.export.export_folder import pooling_mode
from quarry.retrieval.export.loading import EXPORT_FILE, read_export
from quarry.retrieval.export.readme import model_card
from quarry.runtime.disk_errors import readable_size
from quarry.runtime.extras import require
from quarry.runtime.files import remove_at_once, sync, sync_folder, write_json, write_text
from quarry.runtime.hub_upload import (
    VOCABULARIES,
    Upload,
    absolute_paths,
    check_repo_name,
    list_upload,
    upload,
)
from quarry.runtime.leftovers import scratch_folder
from quarry.runtime.logging import quiet_libraries
from quarry.runtime.secret_values import remember, remember_environment
from quarry.runtime.task_output import show
from quarry.tasks.export import exported_folder, owned_source
from quarry.tasks.run_card import card_facts

logger = logging.getLogger(__name__)

LICENSE_NOTE = "LICENSE_NOTE.md"

_PATH_KEYS = ("source", "_name_or_path", "name_or_path", "base_model_name_or_path")
"""Keys of JSON files with the path that a model was read from."""


def push(
    config: DictConfig,
    *,
    repo: str | None,
    private: bool = True,
    dry_run: bool = False,
    dtype: str = "float32",
    folder: str | None = None,
    base_path: str | None = None,
) -> dict[str, float]:
    """Push `run=DIR` to the hub; without a token, list what would be uploaded.

    The folder is that of task=export without paths of this machine, with a model card and a note on
    licenses. One that was prepared from the same weights is used again.

    Args:
        repo: ORG/NAME.
        private: create a private repository, and refuse one that is public.
        dry_run: upload nothing, even with a token.
        dtype: float32, bfloat16 or float16, of the weights.
        folder: the prepared folder; null: `hub` in the run directory.
        base_path: folder of an adapter's base model, if it was moved since training.

    Raises:
        UserError: a file holds a secret or a path, or the hub refuses the upload.
    """
    quiet_libraries()
    validate_task(config)
    refuse_other_overrides(
        ("task", "run", "hydra"),
        why="cannot be changed by task=push: the model is pushed as it was saved. Leave it out; "
        "the keys of task are what can be set.",
    )
    warn_of_run_directory(config, task="push")
    if repo is None:
        raise UserError("task.repo is not set: where to? Fix: task.repo=ORG/NAME")
    check_repo_name(repo)
    if dtype not in DTYPES:
        raise UserError(f"task.dtype={dtype} is not one of {', '.join(DTYPES)}.")
    require("sentence_transformers", what="task=push")
    remember_environment()
    token = get_token()
    if token is not None:
        remember(token)
    with owned_source(config.run):
        target = _prepared(config, repo=repo, dtype=dtype, folder=folder, base_path=base_path)
    listed = list_upload(target, own_paths=_own_paths(config.run, target, base_path))
    reason = _why_not(token, dry_run=dry_run)
    if reason is None and token is not None:
        names = [name for name, _ in listed.files]
        where = upload(target, repo=repo, names=names, is_private=private, token=token)
        outcome = f"Uploaded to {where}"
    else:
        kind = "private" if private else "public"
        outcome = f"Nothing was uploaded: {reason}. It would go to {repo} ({kind})."
    show(
        _listing(listed, target),
        outcome,
        result_line=f"push files={len(listed.files)} bytes={listed.num_bytes} "
        f"uploaded={str(reason is None).lower()}",
    )
    return {"push/num_files": float(len(listed.files)), "push/num_bytes": float(listed.num_bytes)}


def _own_paths(run: str, *folders: Path | str | None) -> list[str]:
    """Return the paths of a run: its own, those of its configuration, and some folders."""
    home = Path(run).expanduser().absolute()
    given = [Path(folder).expanduser().absolute() for folder in folders if folder is not None]
    names = ("config.yaml", "config_resolved.yaml")
    files = [folder / name for folder in (home, home.parent) for name in names]
    texts = [file.read_text(encoding="utf-8") for file in files if file.is_file()]
    return [*map(str, (home, *given)), *sorted(absolute_paths("\n".join(texts)))]


def _why_not(token: str | None, *, dry_run: bool) -> str | None:
    """Return why nothing is uploaded, if so."""
    if dry_run:
        return "task.dry_run=true"
    if token is None:
        return "there is no token of the hub (hf auth login, or HF_TOKEN)"
    return "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else None


def _prepared(
    config: DictConfig, *, repo: str, dtype: str, folder: str | None, base_path: str | None
) -> Path:
    """Return the folder that is uploaded, complete."""
    trusted = trusted_packages(config)
    consolidate_if_unfinished(config.run, trusted=trusted)
    stored = open_stored_model(config.run, base_path=base_path, trusted=trusted)
    target = stored.home / "hub" if folder is None else Path(folder).expanduser().absolute()
    facts = card_facts(stored.home, stored.contract)
    if target.exists() and not (target / LICENSE_NOTE).is_file():
        raise UserError(
            f"{target} exists and is no folder that task=push made; it is not touched. Fix: "
            "task.folder=DIR"
        )
    if target.exists() and _is_of(target, stored, dtype=dtype):
        _finish(target, stored, facts, repo=repo)
        return target
    with scratch_folder(target) as scratch:
        made = scratch / target.name
        exported_folder(config, dtype=dtype, folder=str(made), base_path=base_path)
        _finish(made, stored, facts, repo=repo)
        sync(made)
        if target.exists():
            logger.info("%s is of other weights: it is made anew", target)
            remove_at_once(target)
        made.replace(target)
        sync_folder(target.parent)
    return target


def _finish(target: Path, stored: StoredModel, facts: CardFacts, *, repo: str) -> None:
    """Remove paths from an exported folder, and write card and note."""
    for file in target.rglob("*.json"):
        if file.name not in VOCABULARIES:
            _remove_paths(file)
    options, export = stored.parts.spec.options, read_export(target)
    assert options.pooling is not None
    is_plain = not stored.parts.spec.source.projections() and options.embedding_dim is None
    card = model_card(
        name=repo,
        tokenizer=stored.parts.tokenizer,
        embedding_dim=stored.parts.spec.embedding_dim(stored.parts.spec.source.backbone_config()),
        is_normalized=bool(options.normalize),
        is_causal=bool(stored.contract["settings"]["model.is_causal"]),
        mode=pooling_mode(options.pooling),
        is_plain=is_plain and bool(getattr(options.pooling, "include_prompt", True)),
        facts=facts,
        **asdict(export),
    )
    write_text(target / "README.md", card)
    write_text(target / LICENSE_NOTE, _license_note(facts))


def _is_of(target: Path, stored: StoredModel, *, dtype: str) -> bool:
    """Return whether a folder was exported from these weights, in this dtype."""
    if not (target / EXPORT_FILE).is_file():
        return False
    source = (read_contract(target) or {}).get("exported_from")
    fingerprint = source.get("fingerprint") if isinstance(source, dict) else None
    is_same = fingerprint == weights_fingerprint(str(stored.folder))
    return is_same and read_export(target).dtype == dtype


def _remove_paths(file: Path) -> None:
    """Leave the last part of each path that a model was read from."""
    content = json.loads(file.read_text(encoding="utf-8"))
    changed = _without_paths(content)
    if changed != content and isinstance(changed, dict):
        write_json(file, changed)


def _without_paths(value: Any, key: str = "") -> Any:
    if isinstance(value, Mapping):
        return {name: _without_paths(each, str(name)) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_paths(each) for each in value]
    is_path = key in _PATH_KEYS and isinstance(value, str) and value.startswith(("/", "~", "."))
    return Path(value).name if is_path else value


def _license_note(facts: CardFacts) -> str:
    base = facts.base_model or "unknown"
    datasets = ", ".join(facts.datasets) or facts.data or "unknown"
    return (
        "# Note on licenses\n\n"
        f"- Base model: {base}. License, as its card states it: {facts.base_license or 'unknown'}\n"
        f"- Training data: {datasets}. Its license was not looked up.\n\n"
        "Check both before you publish this model, and put a LICENSE file beside this note.\n"
    )


def _listing(listed: Upload, folder: Path) -> str:
    """Return the files with their sizes, and those that are left out."""
    rows = [(readable_size(size), name) for name, size in listed.files]
    width = max(len(size) for size, _ in rows)
    lines = [f"{size.rjust(width)}  {name}" for size, name in rows]
    total = f"{len(rows)} files, {readable_size(listed.num_bytes)}, of {folder}"
    left_out = [f"Left out: {', '.join(listed.left_out)}"] if listed.left_out else []
    return "\n".join([*lines, total, *left_out])
