"""Map the weight names of an adapter's file to the layers of a backbone.

An adapter that was trained on a model with a head has names such as `model.layers.0`; in the
backbone, which has no head, the same layer is `layers.0`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING
from peft.utils import PeftType
from torch import nn
from transformers import PreTrainedModel

from quarry.errors import UserError
from quarry.models.backbones.huggingface import HEAD_PREFIXES
from quarry.models.backbones.text_model import text_model_name

PREFIX = "base_model.model."
"""Prefix of all names in peft's files: its wrapper, and the tuner inside it."""

REMEDY = "Fix: model.base_path=DIR of the base that the adapter was trained on."


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterNames:
    """Names in an adapter's file, mapped to names in a backbone.

    Attributes:
        layers: layer in the file -> layer in the backbone, for all layers of the backbone.
        weights: weight in the file -> peft's name of it on the backbone.
        dropped: weights of heads, which embeddings do not use.
    """

    layers: Mapping[str, str]
    weights: Mapping[str, str]
    dropped: tuple[str, ...]

    @property
    def is_unchanged(self) -> bool:
        return all(theirs == ours for theirs, ours in self.layers.items())


def adapter_names(
    names: Iterable[str], backbone: PreTrainedModel, *, kind: str, file: Path
) -> AdapterNames:
    """Map an adapter's weights to the layers of a backbone.

    Args:
        names: names of all weights in the adapter's file.
        backbone: a model without a head; its weights are not read.
        kind: the adapter's peft_type.
        file: the adapter's file, for messages.

    Raises:
        UserError: a weight belongs to no layer of the backbone, or none is left.
    """
    names = sorted(names)
    readings = [_read(names, layers, kind=kind) for layers in _namings(backbone)]
    found, unknown = min(readings, key=lambda reading: len(reading[1]))
    if unknown:
        example = next(n for n, m in backbone.named_modules() if isinstance(m, nn.Linear))
        raise UserError(
            f"{file}: {len(unknown)} of {len(names)} weights belong to no layer of "
            f"{type(backbone).__name__}: {_few(unknown)} (expected: names such as "
            f"{PREFIX}{example}). {REMEDY}"
        )
    if not found.weights:
        raise UserError(
            f"{file}: no weight is left for {type(backbone).__name__} (found {len(names)}, of heads"
            f" alone: {_few(names) or 'none'}; expected weights of its layers). {REMEDY}"
        )
    return found


def is_head(name: str) -> bool:
    """Return whether a layer or weight belongs to a head on top of a backbone."""
    return f"{name}.".startswith(HEAD_PREFIXES)


def _namings(backbone: PreTrainedModel) -> list[dict[str, str]]:
    """Return mappings from names that adapters may use for layers to the backbone's names.

    Adapters use the names of the backbone, of the model with a head, or, for vision-language
    models, of transformers before version 4.52.
    """
    layers = [name for name, _ in backbone.named_modules() if name]
    prefix = backbone.base_model_prefix
    namings = [{name: name for name in layers}]
    if prefix:
        namings.append({f"{prefix}.{name}": name for name in layers})
    if (text := text_model_name(backbone)) is not None:
        towers = {name: name for name in layers if not f"{name}.".startswith(f"{text}.")}
        inner = [name.removeprefix(f"{text}.") for name in layers if name.startswith(f"{text}.")]
        namings.append(towers | {f"model.{name}": f"{text}.{name}" for name in inner})
    return namings


def _read(
    names: Iterable[str], layers: Mapping[str, str], *, kind: str
) -> tuple[AdapterNames, list[str]]:
    """Map names by one mapping of layers; return the result and the unknown names."""
    part = PEFT_TYPE_TO_PREFIX_MAPPING[PeftType(kind)]
    own = re.compile(rf"({re.escape(part)}|token_adapter\.|base_layer\.|weight$|bias$).*")
    weights, dropped, unknown = {}, [], []
    for name in names:
        inner = name.removeprefix(PREFIX)
        layer = _longest_layer(inner, layers)
        if layer is not None and name != inner and own.fullmatch(inner[len(layer) + 1 :]):
            weights[name] = f"{PREFIX}{layers[layer]}{inner[len(layer) :]}"
        elif is_head(inner):
            dropped.append(name)
        else:
            unknown.append(name)
    return AdapterNames(layers=layers, weights=weights, dropped=tuple(dropped)), unknown


def _longest_layer(name: str, layers: Mapping[str, str]) -> str | None:
    while name:
        if name in layers:
            return name
        name = name.rpartition(".")[0]
    return None


def _few(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
