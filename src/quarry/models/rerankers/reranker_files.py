"""Tell from a model's config.json which kind of reranker it is, before its weights are read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal, get_args

from transformers import PretrainedConfig

from quarry.errors import UserError
from quarry.models.backbones.huggingface import load_config, resolve_source
from quarry.models.backbones.model_files import model_file, read_json
from quarry.models.saved import CONTRACT_FILE

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
        token_ids: of the tokens for relevant and irrelevant that sentence-transformers' files name;
            None: they name none.
    """

    source: str
    kind: Kind
    config: PretrainedConfig
    activation: Activation | None
    token_ids: tuple[int, int] | None = None


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
    if kind == "auto" and is_bi_encoder(source, revision=revision):
        raise UserError(
            f"{key}.path={path}: is a bi-encoder by its files, no reranker. Fix: {key}.path=DIR of "
            f"a reranker, or {key}.kind=yes_no if its language-model head shall answer"
        )
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
        source=source,
        kind=found,
        config=config,
        activation=_activation(config, path, key=key),
        token_ids=_stated_tokens(source, revision, key=key) if found == "yes_no" else None,
    )


def is_bi_encoder(source: str, *, revision: str | None = None) -> bool:
    """Return whether a model's files say that its states are pooled to embeddings.

    Some bi-encoders have the architecture of a language model in config.json.
    """
    if model_file(source, CONTRACT_FILE, revision=revision) is not None:
        return True
    return any(kind == "Pooling" for kind, _ in _modules(source, revision=revision))


def _modules(source: str, *, revision: str | None) -> list[tuple[str, str]]:
    """Return name and folder of the modules that sentence-transformers' modules.json lists."""
    file = model_file(source, "modules.json", revision=revision)
    if file is None:
        return []
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        return [(str(each["type"]).rpartition(".")[2], str(each["path"])) for each in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file}: must be a list of modules with type and path ({error}). Fix: restore the file"
        ) from error


def _stated_tokens(source: str, revision: str | None, *, key: str) -> tuple[int, int] | None:
    """Return the ids of the tokens for relevant and irrelevant that a LogitScore module names.

    Raises:
        UserError: it names one token, whose logit alone is the score.
    """
    for kind, folder in _modules(source, revision=revision):
        if kind == "LogitScore":
            file = model_file(source, f"{folder}/config.json", revision=revision)
            content = {} if file is None else read_json(file)
            true, false = content.get("true_token_id"), content.get("false_token_id")
            if not isinstance(true, int):
                return None
            if not isinstance(false, int):
                raise UserError(
                    f"{key}.path={source}: its files score by the logit of one token (no "
                    f"false_token_id in {file}), which is not supported. Fix: {key}.path=DIR of a "
                    "reranker that compares two tokens"
                )
            return true, false
    return None


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
