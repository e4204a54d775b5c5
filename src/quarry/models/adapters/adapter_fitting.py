"""Translate a stored adapter's configuration to the layer names of a backbone.

Its names, patterns and regular expressions refer to the model that the adapter was trained on,
whose layers may have other names (see adapter_names.py).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from peft import PeftConfig, TaskType
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.constants import INCLUDE_LINEAR_LAYERS_SHORTHAND as ALL_LINEAR
from peft.utils.other import get_pattern_key
from transformers import PreTrainedModel

from quarry.errors import UserError
from quarry.models.adapters.adapter_config import AdapterConfig
from quarry.models.adapters.adapter_names import PREFIX, AdapterNames, is_head

_RESTRICTIONS = ("exclude_modules", "layers_to_transform", "layers_pattern")
_PATTERNS = ("rank_pattern", "alpha_pattern")

MAX_TEXT = 100_000
"""Characters of a regular expression, or another text."""

_MALFORMED = (AttributeError, KeyError, TypeError, ValueError)

Match = Callable[[str], bool]


def fitted_config(
    adapter: AdapterConfig, names: AdapterNames, backbone: PreTrainedModel
) -> PeftConfig:
    """Return peft's configuration of an adapter for a backbone, without heads.

    Raises:
        UserError: peft cannot read the settings, or they cannot be expressed for a backbone.
    """
    settings = {k: v for k, v in adapter.settings.items() if k != "runtime_config"}
    _check_counts(adapter, num_layers=len(names.layers))
    try:
        config: PeftConfig = PeftConfig.from_peft_type(**settings)
        config.inference_mode = False
        if config.task_type is not None:  # other task types look for a head
            config.task_type = TaskType.FEATURE_EXTRACTION
        if hasattr(config, "ensure_weight_tying") and names.dropped:
            config.ensure_weight_tying = False
        _fit_patterns(config, names.layers)
        _fit_targets(config, names.layers)
        _fit_saved_layers(config, names, backbone)
        _fit_token_indices(config, names.layers)
    except (*_MALFORMED, re.error) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{adapter.file}: these settings cannot be applied ({type(error).__name__}: {reason}; "
            "expected: what peft writes). Fix: restore the file, or merge the adapter with peft."
        ) from error
    return config


def _check_counts(adapter: AdapterConfig, *, num_layers: int) -> None:
    """Refuse more patterns or names than layers can need: peft compares each with each layer."""
    limits = dict.fromkeys(_PATTERNS, 100 + 2 * num_layers)
    for key, value in adapter.settings.items():
        if key == "trainable_token_indices" or not isinstance(value, list | dict | str):
            continue
        limit = MAX_TEXT if isinstance(value, str) else limits.get(key, 1000 + 4 * num_layers)
        if len(value) > limit:
            raise UserError(
                f"{adapter.file}: {key} has a length of {len(value):,} (for this adapter's "
                f"{num_layers} layers at most {limit:,}). Fix: restore the file."
            )


def _fit_targets(config: Any, layers: Mapping[str, str]) -> None:
    """List the target layers in full if the settings match other layers on the backbone."""
    if _names_targets(config.target_modules):
        before = copy.copy(config)
        if isinstance(config.target_modules, set | list):
            config.target_modules = set(_without_heads(config.target_modules, layers))
        if targets := _spelled_out(lambda name: _is_target(before, name), layers):
            for restriction in _RESTRICTIONS:
                setattr(config, restriction, None)
            config.target_modules = set(targets)
    feedforward = getattr(config, "feedforward_modules", None) or ()
    if targets := _spelled_out(_ends_or_matches(feedforward), layers):
        config.feedforward_modules = set(targets)


def _fit_patterns(config: Any, layers: Mapping[str, str]) -> None:
    """List per-layer ranks and alphas in full if patterns match other layers on the backbone."""
    for key in _PATTERNS:
        pattern = getattr(config, key, None) or {}
        if not pattern:
            continue
        theirs = {ours: _value(pattern, name) for name, ours in layers.items()}
        if any(value != _value(pattern, name) for name, value in theirs.items()):
            wanted = {
                name: value
                for (original, name), value in zip(layers.items(), theirs.values(), strict=True)
                if value is not None
                and (not _names_targets(config.target_modules) or _is_target(config, original))
            }
            setattr(config, key, {f"^{re.escape(name)}": value for name, value in wanted.items()})


def _fit_saved_layers(config: Any, names: AdapterNames, backbone: PreTrainedModel) -> None:
    """Translate `modules_to_save` to the backbone's names, without heads.

    Embeddings that the file holds are added even if the settings do not list them: peft saves them
    for a base with added tokens.
    """
    wanted = list(getattr(config, "modules_to_save", None) or ())
    kept = _without_heads(wanted, names.layers)
    saved = _spelled_out(_ends(kept), names.layers) or kept
    meant = {ours for theirs, ours in names.layers.items() if _ends(kept)(theirs)}
    if others := [n for n in names.layers.values() if _ends(saved)(n) and n not in meant]:
        raise ValueError(f"modules_to_save={wanted}: peft takes {others[:3]} of a backbone, too")
    embeddings = backbone.get_input_embeddings()
    name = next(n for n, layer in backbone.named_modules() if layer is embeddings)
    if f"{PREFIX}{name}.weight" in names.weights.values() and not _ends(saved)(name):
        saved = [*saved, name]
    if wanted or saved:
        config.modules_to_save = saved or None


def _fit_token_indices(config: Any, layers: Mapping[str, str]) -> None:
    indices = getattr(config, "trainable_token_indices", None)
    if not isinstance(indices, dict):
        return
    fitted = {}
    for name in _without_heads(indices, layers):
        ours = _spelled_out(_ends([name]), layers)
        fitted[ours[0] if ours else name] = indices[name]
    config.trainable_token_indices = fitted or None


def _spelled_out(matches: Match, layers: Mapping[str, str]) -> list[str] | None:
    """Return the backbone's names of the layers whose names in the file match.

    Returns:
        None if the backbone's own names match the same layers.
    """
    theirs = [ours for name, ours in layers.items() if matches(name)]
    ours = [name for name in layers.values() if matches(name)]
    return None if theirs == ours else theirs


def _names_targets(targets: Any) -> bool:
    """Return whether targets are names; for "all-linear" peft finds layers by their class."""
    return bool(targets) and not (isinstance(targets, str) and targets.lower() == ALL_LINEAR)


def _is_target(config: Any, name: str) -> bool:
    return bool(check_target_module_exists(config, name))


def _ends(words: Iterable[str]) -> Match:
    ends = tuple(words)
    return lambda name: name.endswith(ends)


def _ends_or_matches(words: str | Iterable[str]) -> Match:
    if isinstance(words, str):
        return lambda name: re.fullmatch(words, name) is not None
    return _ends(words)


def _value(pattern: Mapping[str, Any], name: str) -> Any:
    return pattern.get(get_pattern_key(list(pattern), name))


def _without_heads(words: Iterable[str], layers: Mapping[str, str]) -> list[str]:
    """Return names without those of heads, such as lm_head, that the backbone does not have."""
    both = [*layers, *layers.values()]
    return [w for w in words if not is_head(w) or any(name.endswith(w) for name in both)]
