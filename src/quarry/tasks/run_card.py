"""Collect what a model card states of a run, and write the card of the folder that it trained."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import quarry
from quarry.assembly.model_parts import ModelParts
from quarry.config.stored import read_unchecked_config
from quarry.data.msmarco import HUB_ID
from quarry.errors import UserError
from quarry.evaluation.run_directory_files import METRICS_FILE, read_reports
from quarry.models.backbones.model_files import model_file
from quarry.models.saved import read_contract
from quarry.retrieval.export.card_facts import CardFacts, SetScores
from quarry.retrieval.export.readme import folder_card
from quarry.runtime.files import write_text
from quarry.runtime.hub_access import from_cache_alone
from quarry.runtime.run_directory import RunDirectory
from quarry.runtime.secret_values import without_secrets

logger = logging.getLogger(__name__)

TRAINING_DATA = "training_data"
"""Part of summary.json with the number and the digest of the training examples."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def card_facts(
    folder: Path, contract: Mapping[str, Any], *, summary: Mapping[str, Any] | None = None
) -> CardFacts:
    """Return what the files of a model's run say; what they do not say stays unknown.

    Args:
        folder: with the model: a run directory, its `model`, one below its `checkpoints`, or any
            other folder, of which the base model alone is known.
        summary: of the run; None: what its summary.json holds.
    """
    base = contract.get("base")
    facts: dict[str, Any] = _of_base(base if isinstance(base, dict) else {})
    facts["quarry_version"] = quarry.__version__
    found = _run_of(folder)
    if found is None:
        return CardFacts(**facts)
    run, retriever = found
    facts |= _of_data(run, summary if summary is not None else _json(run.summary))
    facts |= _of_results(run, retriever)
    return CardFacts(**facts)


def write_model_card(run: RunDirectory, parts: ModelParts, *, summary: Mapping[str, Any]) -> None:
    """Write README.md of the trained model's folder, if the run has saved a model."""
    contract = read_contract(run.model) if run.model.is_dir() else None
    if contract is None:
        return
    settings = contract["settings"]
    card = folder_card(
        name="model",
        tokenizer=parts.tokenizer,
        embedding_dim=parts.spec.embedding_dim(parts.spec.source.backbone_config()),
        is_normalized=bool(settings["model.normalize"]),
        is_causal=bool(settings["model.is_causal"]),
        pooling=str(settings["model.pooling"].get("_target_", "")).rpartition(".")[2],
        has_adapter=(run.model / "adapter_config.json").is_file(),
        facts=card_facts(run.path, contract, summary=summary),
    )
    write_text(run.model / "README.md", card)


def _run_of(folder: Path) -> tuple[RunDirectory, str] | None:
    """Return the run of a folder, and what its reports call the model in it."""
    from quarry.tasks.training_reports import BEST, TRAINED  # imports Lightning

    for home, retriever in (
        (folder, TRAINED),
        (folder.parent, TRAINED if folder.name == "model" else ""),
        (folder.parent.parent, BEST if folder.name == "best" else ""),
    ):
        run = RunDirectory(home)
        if retriever and run.resolved_config.is_file():
            return run, retriever
    return None


def _of_base(base: Mapping[str, Any]) -> dict[str, Any]:
    source = str(base.get("source") or "")
    is_on_hub = _HUB_ID.fullmatch(source) is not None and not Path(source).exists()
    revision = base.get("commit") or base.get("revision")
    return {
        "base_model": (source if is_on_hub else Path(source).name) or None,
        "base_is_on_hub": is_on_hub,
        "base_revision": None if revision is None else str(revision),
        "base_license": _license(source, None if revision is None else str(revision)),
        "base_fingerprint": base.get("fingerprint"),
    }


def _license(source: str, revision: str | None) -> str | None:
    """Return the license that the base model's card states; nothing is downloaded."""
    if not source:
        return None
    try:
        with from_cache_alone():
            file = model_file(source, "README.md", revision=revision)
        text = "" if file is None else file.read_text(encoding="utf-8", errors="replace")
        found = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
        header = None if found is None else yaml.safe_load(found[1])
    except (UserError, OSError, yaml.YAMLError):
        return None
    stated = header.get("license") if isinstance(header, dict) else None
    if stated == "other" and isinstance(header, dict):
        stated = header.get("license_name") or stated
    return stated if isinstance(stated, str) and stated else None


def _of_data(run: RunDirectory, summary: Mapping[str, Any]) -> dict[str, Any]:
    stored: Any = read_unchecked_config(run.resolved_config)
    data, options = stored.get("data") or {}, _json(run.provenance).get("options") or {}
    if not data:
        return {}
    counted = summary.get(TRAINING_DATA) or {}
    path, option = data.get("path"), options.get("data")
    hub_id = _hub_data(str(option), None if path is None else str(path))
    shown = hub_id or (None if path is None else Path(str(path)).name)
    parts = [f"{key} {data.get(key)}" for key in ("subset", "split") if data.get(key) is not None]
    named = f"`data={option}`" if option else None
    loss = stored.get("loss") or {}
    return {
        "data": without_secrets(", ".join(filter(None, [shown, *parts, named]))) or None,
        "datasets": () if hub_id is None else (hub_id,),
        "num_examples": counted.get("num_examples"),
        "data_digest": counted.get("digest"),
        "data_caveats": tuple(
            _without_path(str(each)).rstrip(".") for each in summary.get("caveats") or ()
        ),
        "loss": str(loss.get("_target_", "")).rpartition(".")[2] or None,
    }


def _hub_data(option: str, path: str | None) -> str | None:
    """Return the hub id of a training set."""
    if option == "msmarco" and path is None:
        return HUB_ID
    is_id = option == "hub" and path is not None and _HUB_ID.fullmatch(path) is not None
    return path if is_id and not Path(str(path)).exists() else None


def _of_results(run: RunDirectory, retriever: str) -> dict[str, Any]:
    if not (run.path / METRICS_FILE).is_file():
        return {}
    reports = read_reports(run.path)
    scores: dict[str, SetScores] = {}
    for report in reports:
        for result in report.results:
            known = scores.get(result.name)
            values = {} if known is None else dict(known.values)
            scores[result.name] = SetScores(
                name=result.name,
                source=None if result.source is None else _without_path(result.source),
                num_queries=result.num_queries,
                num_documents=result.num_documents,
                values=values | {report.retriever: dict(result.metrics)},
            )
    return {"retriever": retriever, "scores": tuple(scores.values())}


def _without_path(text: str) -> str:
    """Return a text with the last part of each absolute path in it, and without secrets."""
    return re.sub(r"(?<![\w:/])~?/(?:[^\s/,;]+/)*", "", without_secrets(text))


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        logger.warning("%s is left out of the model card: %s", path, error)
        return {}
    return content if isinstance(content, dict) else {}
