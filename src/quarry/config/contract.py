"""Apply a model's stored contract: over configuration defaults, under explicit overrides.

A contract comes with a checkpoint and is not trusted: it may name only our own prompt and pooling
classes, with plain values.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from quarry.config.signature_rules import signature_violations
from quarry.config.stored_targets import how_to_trust
from quarry.data.tokenization import TextTokenizer
from quarry.errors import UserError
from quarry.models.backbones.text_model import text_model
from quarry.models.bi_encoder import BiEncoder
from quarry.models.projections import Dense
from quarry.models.saved import PROJECTIONS_FILE
from quarry.runtime.override_text import key_of

logger = logging.getLogger(__name__)

NODES = {
    "prompt": "prompt",
    "model.pooling": "model/pooling",
    "model.is_causal": None,
    "model.normalize": None,
}
"""Configuration keys that a contract decides -> the group that chooses each, if there is one."""

EMBEDDING_DIM = "model.embedding_dim"
"""A further key, which a contract has where embeddings are cut."""

ALLOWED_MODULES = {"prompt": "quarry.data.prompts.", "model.pooling": "quarry.models.pooling."}
"""Modules whose classes a contract may name; the other settings are true or false."""


FORMAT = 2


@dataclass(frozen=True, kw_only=True)
class ContractTerms:
    """The part of a contract that comes from the training configuration.

    Attributes:
        settings: key of `NODES` -> its value, as plain data.
        temperature: of the loss; None where the loss has none.
    """

    settings: Mapping[str, Any]
    temperature: float | None


def contract_terms(config: DictConfig) -> ContractTerms:
    """Return a configuration's part of the contract."""
    settings = {key: _plain(OmegaConf.select(config, key)) for key in NODES}
    embedding_dim = OmegaConf.select(config, EMBEDDING_DIM)
    if embedding_dim is not None:
        settings[EMBEDDING_DIM] = embedding_dim
    return ContractTerms(
        settings=settings,
        temperature=config.loss.get("temperature"),
    )


def contract_of(
    terms: ContractTerms,
    *,
    model: BiEncoder,
    tokenizer: TextTokenizer,
    base: Mapping[str, Any],
    projections: Sequence[Dense] = (),
) -> dict[str, Any]:
    """Return the contract of a trained model, as plain data.

    Args:
        base: the weights that training started from, see `models.saved.describe_base`.
        projections: layers after the pooling.
    """
    return {
        "format": FORMAT,
        "base": dict(base),
        "eos_token_id": tokenizer.tokenizer.eos_token_id,
        "dtype": str(text_model(model.backbone).dtype).removeprefix("torch."),
        "temperature": terms.temperature,
        "settings": {**terms.settings, "model.is_causal": model.is_causal},
        "frames": frames_of(tokenizer),
        "projections": [
            dense.as_data() | {"weights": PROJECTIONS_FILE, "prefix": f"{index}."}
            for index, dense in enumerate(projections)
        ],
    }


def frames_of(tokenizer: TextTokenizer) -> dict[str, Any]:
    """Return the rendered prompt of each role: literal text and token ids around the text."""
    return {
        role: {
            "literals": list(frame.literals),
            "start_ids": list(frame.start_ids),
            "end_ids": list(frame.end_ids),
        }
        for role, frame in tokenizer.frames.items()
    }


def has_own_prompt(contract: Mapping[str, Any], prompt: DictConfig) -> bool:
    """Return whether `prompt` is the contract's own; another one was logged when it was chosen."""
    return bool(contract["settings"]["prompt"] == _plain(prompt))


def check_frames(contract: Mapping[str, Any], tokenizer: TextTokenizer, *, source: str) -> None:
    """Refuse a tokenizer that renders the contract's own prompt differently than before saving.

    Raises:
        UserError: with the prompt that was found and the expected one.
    """
    found, expected = frames_of(tokenizer), contract.get("frames")
    for role in found:
        if not isinstance(expected, dict) or found[role] != expected.get(role):
            raise UserError(
                f"The tokenizer in {source} renders a {role} as {found[role]}, the model's "
                f"contract says {(expected or {}).get(role)}: the folder was changed after it was "
                "saved. Fix: restore its tokenizer files."
            )


def apply_contract(
    config: DictConfig,
    contract: Mapping[str, Any],
    *,
    explicit: Sequence[str],
    trusted: Sequence[str] = (),
) -> dict[str, Any]:
    """Put the settings of a stored contract into `config`; see `apply_settings`.

    Args:
        trusted: packages whose classes it may name besides our own, see `trusted_packages`.

    Raises:
        UserError: the contract has another version, or names something other than plain values
            and our own classes.
    """
    settings = contract.get("settings")
    if (
        contract.get("format") != FORMAT
        or not isinstance(settings, dict)
        or set(settings) - {EMBEDDING_DIM} != set(NODES)
    ):
        raise UserError(
            f"The model's quarry_contract.json has format {contract.get('format')!r} and settings "
            f"{sorted(settings) if isinstance(settings, dict) else settings!r}; this version reads "
            f"format {FORMAT} with {sorted(NODES)}. Was it written by another version?"
        )
    for key in settings:
        _check_stored(settings[key], key, trusted)
    return apply_settings(config, settings, explicit=explicit)


def apply_settings(
    config: DictConfig, settings: Mapping[str, Any], *, explicit: Sequence[str]
) -> dict[str, Any]:
    """Put settings into `config`, except those that the command line overrides.

    Args:
        config: changed in place.
        settings: values of some keys of `NODES`.
        explicit: keys that the command line overrides, see `explicit_keys`.

    Returns:
        The differences, which are also logged: key -> {"contract": ..., "used": ...}.
    """
    differences: dict[str, Any] = {}
    for key in settings:
        group = NODES.get(key)
        wanted = _plain(OmegaConf.select(config, key))
        used = _merge(settings[key], wanted, key=key, group=group, explicit=explicit)
        if used != settings[key]:
            differences[key] = {"contract": settings[key], "used": used}
            _log_differences(key, settings[key], used)
        OmegaConf.update(config, key, used, merge=False, force_add=True)
    return differences


def _log_differences(key: str, stated: Any, used: Any) -> None:
    if not isinstance(stated, dict) or stated.get("_target_") != used.get("_target_"):
        logger.warning("%s=%s is used, and the model states %s", key, used, stated)
        return
    for name in dict.fromkeys([*stated, *used]):
        if stated.get(name) != used.get(name):
            logger.warning(
                "%s.%s=%r is used, and the model states %r",
                key, name, used.get(name), stated.get(name),
            )  # fmt: skip


def explicit_keys() -> list[str]:
    """Return the keys and groups that the command line of this job overrides."""
    if not HydraConfig.initialized():
        return []
    overrides = HydraConfig.get().overrides.task
    return [key_of(entry).partition("@")[0] for entry in overrides]


def chosen_options() -> dict[str, str]:
    """Return the chosen option of each configuration group of this job: `model` -> `qwen-coder`."""
    if not HydraConfig.initialized():
        return {}
    choices = HydraConfig.get().runtime.choices
    return {
        str(group): str(option)
        for group, option in choices.items()
        if not str(group).startswith("hydra/")
    }


def _merge(
    stored: Any, wanted: Any, *, key: str, group: str | None, explicit: Sequence[str]
) -> Any:
    if key in explicit or group in explicit:
        return wanted
    if not isinstance(stored, dict):
        return stored
    named = {
        leaf: wanted[leaf]
        for leaf in wanted
        if any(name == f"{key}.{leaf}" or name.startswith(f"{key}.{leaf}.") for name in explicit)
    }
    return stored | named


def _check_stored(value: Any, key: str, trusted: Sequence[str]) -> None:
    """Refuse anything but our own classes, trusted ones and plain values."""
    if key == EMBEDDING_DIM:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(
                f"The model's quarry_contract.json has {key}={value!r}: it must be a number of 1 "
                "or more."
            )
        return
    if key not in ALLOWED_MODULES:
        if not isinstance(value, bool):
            raise UserError(
                f"The model's quarry_contract.json has {key}={value!r}: it must be true or false."
            )
        return
    target = value.get("_target_") if isinstance(value, dict) else value
    modules = (ALLOWED_MODULES[key], *(f"{name}." for name in trusted))
    is_allowed = any(_is_class_in(target, module) for module in modules)
    if not isinstance(value, dict) or not is_allowed:
        raise UserError(
            f"The model's quarry_contract.json names {target!r} for {key}, which is no prompt or "
            f"pooling of this installation. {how_to_trust(target)}; or state the prompt and "
            "pooling on the command line and remove the file."
        )
    problems = [
        f"{key}.{name}={entry!r} is no plain value"
        for name, entry in value.items()
        if name != "_target_" and (name.startswith("_") or not _is_plain(entry))
    ]
    problems += signature_violations(OmegaConf.create(value), key) if not problems else []
    if problems:
        raise UserError(f"The model's quarry_contract.json cannot be used: {'; '.join(problems)}")


def _is_class_in(target: Any, module: str) -> bool:
    """Return whether `target` is a class that is defined in `module` or below it."""
    if not isinstance(target, str) or not target.startswith(module):
        return False
    try:
        found = get_object(target)
    except Exception:  # noqa: BLE001 (importing a name that is not there)
        return False
    return isinstance(found, type) and f"{found.__module__}.".startswith(module)


def _is_plain(value: Any) -> bool:
    """Return whether a value is a scalar or a list of them, without interpolations of OmegaConf."""
    if isinstance(value, list):
        return all(_is_plain(item) for item in value)
    if isinstance(value, str):
        return "${" not in value
    return value is None or isinstance(value, bool | int | float)


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
