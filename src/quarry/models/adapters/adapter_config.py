"""Read a peft adapter's adapter_config.json, in a folder or on the hub: its kind and its base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftType

from quarry.errors import UserError
from quarry.models.backbones.model_files import model_file, read_json

CONFIG_FILE = "adapter_config.json"

MAX_BYTES = 2 * 2**20
"""Largest file that is read; those of peft have some kilobytes."""

KINDS = ("LORA", "LOHA", "LOKR", "IA3", "OFT", "HRA", "LN_TUNING")
"""Kinds that change single layers, token by token, so that packing does not change their result.
Each is compared with peft in tests/unit/models/adapters/."""

PROMPTS = (
    "PROMPT_TUNING",
    "MULTITASK_PROMPT_TUNING",
    "P_TUNING",
    "PREFIX_TUNING",
    "ADAPTION_PROMPT",
    "CPT",
    "CARTRIDGE",
)
"""Kinds that prepend learned tokens, or keys and values, to a text."""

REFUSED_OPTIONS = {
    "alora_invocation_tokens": "it is active from certain tokens on",
    "arrow_config": "it chooses between several adapters",
    "monteclora_config": "it is random",
    "layer_replication": "it repeats layers of its base",
    "target_parameters": "it changes parameters that are no layer",
    "megatron_config": "it belongs to another library's layers",
}
"""Option of LoRA -> why packed attention and the fast path cannot compute it exactly."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterConfig:
    """The adapter_config.json of an adapter.

    Attributes:
        file: path of the file.
        settings: its full content.
        kind: its peft_type, one of KINDS.
        base: folder or hub id of the base model; None if it names none.
        base_revision: branch, tag or commit of the base; None if it names none.
    """

    file: Path
    settings: Mapping[str, Any]
    kind: str
    base: str | None
    base_revision: str | None


def read_adapter_config(source: str, *, revision: str | None = None) -> AdapterConfig | None:
    """Return an adapter's configuration; None if a folder or hub id is no adapter.

    Args:
        source: a folder or a hub id.
        revision: branch, tag or commit of the adapter's hub id, not of its base.

    Raises:
        UserError: the file is malformed, or the kind of adapter is not supported.
    """
    file = model_file(source, CONFIG_FILE, revision=revision)
    if file is None:
        return None
    if file.stat().st_size > MAX_BYTES:
        raise UserError(f"{file}: larger than {MAX_BYTES:,} bytes. Fix: restore the file")
    settings = read_json(file)
    return AdapterConfig(
        file=file,
        settings=settings,
        kind=_kind(file, settings),
        base=_text(file, settings, "base_model_name_or_path"),
        base_revision=_text(file, settings, "revision"),
    )


def _kind(file: Path, settings: Mapping[str, Any]) -> str:
    """Return peft_type, and refuse kinds and options that are not supported."""
    kind = settings.get("peft_type")
    allowed = ", ".join(KINDS)
    known = (*KINDS, *PROMPTS, *PeftType)  # an older peft lacks some
    if kind not in known:
        found = "is missing" if "peft_type" not in settings else f"is {kind!r}"
        raise UserError(
            f"{file}: peft_type {found}, which no adapter of peft is (allowed: {allowed}). Fix: "
            "restore the adapter's files."
        )
    if kind in PROMPTS:
        raise UserError(
            f"{file}: peft_type={kind}: learned prompts are not read: packed batches cannot "
            f"prepend them to each text (allowed: {allowed}). Fix: model.path=the base model, or "
            "an adapter of another kind."
        )
    if kind not in KINDS:
        raise UserError(
            f"{file}: peft_type={kind}: this kind of adapter is not read (allowed: {allowed}). "
            "Fix: merge it with peft (merge_and_unload) and give model.path=DIR of the result."
        )
    for option, reason in REFUSED_OPTIONS.items():
        if settings.get(option):
            value = str(settings[option])[:60]
            raise UserError(
                f"{file}: {option}={value}: such an adapter is not read: {reason} (allowed: null). "
                "Fix: model.path of an adapter without it."
            )
    return str(kind)


def _text(file: Path, settings: Mapping[str, Any], key: str) -> str | None:
    value = settings.get(key)
    if value is not None and not isinstance(value, str):
        raise UserError(
            f"{file}: {key}={value!r} is no text (allowed: text, null). Fix: restore the file."
        )
    return value or None
