"""Tell from a model's config.json which kind of reranker it is, before its weights are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from transformers import PretrainedConfig

from quarry.errors import UserError
from quarry.models.backbones.huggingface import load_config, resolve_source
from quarry.models.backbones.model_files import model_file

Kind = Literal["classifier", "yes_no"]
Activation = Literal["identity", "sigmoid", "log_sigmoid"]

ACTIVATIONS = get_args(Activation)

_ENDINGS: dict[str, Kind] = {"ForSequenceClassification": "classifier", "ForCausalLM": "yes_no"}
_STATED: dict[str, Activation] = {"Sigmoid": "sigmoid", "Identity": "identity"}
_NO_CHANGE = (None, 1, 1.0)


@dataclass(frozen=True, kw_only=True)
class RerankerFacts:
    """What a model folder or repository says of itself.

    Attributes:
        source: the folder or hub id.
        kind: a sequence classifier, or a language model that answers yes or no.
        config: of the model.
        activation: that sentence-transformers' CrossEncoder applies by the folder's files; None:
            they name none.
    """

    source: str
    kind: Kind
    config: PretrainedConfig
    activation: Activation | None


def reranker_facts(
    path: str | None, *, revision: str | None, kind: str = "auto", key: str
) -> RerankerFacts:
    """Return the facts of a reranker.

    Args:
        path: a folder or hub id.
        kind: "auto": by the architecture in config.json.
        key: of `path` and its neighbours in the configuration, for messages.

    Raises:
        MissingPathError: `path` is no model.
        UserError: it is no reranker.
    """
    if path is None:
        raise UserError(
            f"{key}.path=null: no reranker is named (a cross-encoder, or a generative reranker). "
            f"Fix: {key}.path=DIR"
        )
    source = resolve_source(path, key=f"{key}.path")
    if model_file(source, "config.json", revision=revision) is None:
        raise UserError(
            f"{key}.path={path}: has no config.json, so it is no complete model. Fix: merge an "
            "adapter into its base (peft: merge_and_unload), and give the folder"
        )
    config = load_config(source, revision=revision)
    found = _kind_of(config)
    if kind != "auto":
        if kind not in get_args(Kind):
            raise UserError(
                f"{key}.kind={kind}: unknown (auto, {', '.join(get_args(Kind))}). "
                f"Fix: {key}.kind=auto"
            )
        found = kind  # type: ignore[assignment]
    if found is None:
        names = ", ".join(config.architectures or ()) or "no architecture"
        raise UserError(
            f"{key}.path={path}: is no reranker, its config.json names {names} (needed: "
            f"{', '.join(f'...{each}' for each in _ENDINGS)}). Fix: {key}.path=DIR of a reranker"
        )
    if found == "classifier":
        _check_labels(config, path=path, key=key)
    else:
        _check_head(config, path=path, key=key)
    return RerankerFacts(
        source=source, kind=found, config=config, activation=_activation(config, path, key=key)
    )


def _kind_of(config: PretrainedConfig) -> Kind | None:
    for name in config.architectures or ():
        for ending, kind in _ENDINGS.items():
            if name.endswith(ending):
                return kind
    return None


def _check_labels(config: PretrainedConfig, *, path: str, key: str) -> None:
    if config.num_labels not in (1, 2):
        raise UserError(
            f"{key}.path={path}: its classifier has {config.num_labels} labels (a reranker has 1: "
            f"the score; or 2: irrelevant, relevant). Fix: {key}.path=DIR of a reranker"
        )


def _check_head(config: PretrainedConfig, *, path: str, key: str) -> None:
    """Refuse heads that change logits by more than a product with their weights."""
    text = config.get_text_config()
    for name in ("final_logit_softcapping", "logits_scaling", "logit_scale"):
        if getattr(text, name, None) not in _NO_CHANGE:
            raise UserError(
                f"{key}.path={path}: its logits are changed after the head ({name} in config.json),"
                f" which is not supported. Fix: {key}.path=DIR of another reranker"
            )


def _activation(config: PretrainedConfig, path: str, *, key: str) -> Activation | None:
    """Return the activation that sentence-transformers' files name, in either of its keys."""
    own = getattr(config, "sentence_transformers", None)
    stated = own.get("activation_fn") if isinstance(own, dict) else None
    stated = stated or getattr(config, "sbert_ce_default_activation_function", None)
    if stated is None:
        return None
    name = str(stated).rpartition(".")[2]
    if name not in _STATED:
        raise UserError(
            f"{key}.path={path}: its config.json names the activation {stated} (supported: "
            f"{', '.join(_STATED)}). Fix: {key}.activation=identity"
        )
    return _STATED[name]
