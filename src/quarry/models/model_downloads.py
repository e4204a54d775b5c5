"""List the hub files that loading a model reads, without other formats of its weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from quarry.errors import UserError
from quarry.models.adapters.adapter_config import CONFIG_FILE as ADAPTER_CONFIG
from quarry.models.adapters.stored_adapter import ADAPTER_FILE, PICKLED_FILE
from quarry.models.backbones.huggingface import (
    VOCABULARY_FILES,
    resolve_source,
    resolve_tokenizer,
)
from quarry.models.backbones.model_files import model_file, read_json
from quarry.models.folders.modules import MODULES_FILE, ModelFolder, read_modules
from quarry.models.folders.sentence_transformers import MODEL_FILE, TRANSFORMER_FILES
from quarry.models.model_source import ModelSource
from quarry.models.saved import CONTRACT_FILE, PROJECTIONS_FILE
from quarry.runtime.hub_files import HubFiles, Names

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
SAFETENSORS = "model.safetensors"

WEIGHTS: tuple[Names, ...] = (
    (SAFETENSORS,),
    ("model.safetensors.index.json", "model-*.safetensors"),
)
"""Weights in one file or in shards; transformers prefers the former."""

ADAPTER_WEIGHTS: tuple[Names, ...] = ((ADAPTER_FILE,), (PICKLED_FILE,))
DENSE_WEIGHTS = (SAFETENSORS, "pytorch_model.bin")

VOCABULARIES: tuple[Names, ...] = ((TOKENIZER,), *((name,) for name in VOCABULARY_FILES))

BESIDE_VOCABULARY: Names = (
    TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json", "merges.txt",
    "chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja",
)  # fmt: skip

BESIDE_WEIGHTS: Names = (
    CONTRACT_FILE, PROJECTIONS_FILE, MODULES_FILE, MODEL_FILE, *TRANSFORMER_FILES, CONFIG,
    ADAPTER_CONFIG, TOKENIZER_CONFIG,
)  # fmt: skip
"""Configuration files of a repository, small files that are read before any weights."""


def model_hub_files(model: ModelSource) -> tuple[HubFiles, ...]:
    """Return the hub files that loading a model and its tokenizer reads; none for a local model.

    Small configuration files (an adapter's base, the modules of sentence-transformers, where code
    lies) are read from the hub or its cache to find the others.

    Raises:
        UserError: no model is named, its configuration is not supported, or the hub fails.
    """
    if model.path is None and model.hub_id is None and model.replica is not None:
        tokenizer = model.tokenizer_path  # the replica's tokenizer is made from it
        return () if tokenizer is None else tuple(_tokenizer(tokenizer))
    return tuple(_model(model))


def reranker_hub_files(path: str, *, revision: str | None) -> tuple[HubFiles, ...]:
    """Return the hub files that loading a reranker and its tokenizer reads; none for a folder."""
    modules = (MODULES_FILE, CONTRACT_FILE, "*_LogitScore/config.json")
    return tuple(
        _of_hub(
            resolve_source(path, key="retriever.reranker.path"),
            revision,
            "reranker",
            names=("generation_config.json", *modules, *BESIDE_VOCABULARY),
            one_of=(((CONFIG,),), WEIGHTS, VOCABULARIES),
        )
    )


def _model(model: ModelSource) -> Iterator[HubFiles]:
    home, source, adapter = model.home(), model.location(), model.adapter_config()
    yield from _beside_weights(home, revision=model.revision, used_by="model")
    base, revision = model.base_location(), model.base_revision()
    if adapter is not None:
        yield from _of_hub(source, model.revision, "adapter", one_of=(ADAPTER_WEIGHTS,))
        yield from _beside_weights(base, revision=revision, used_by="base of the adapter")
    used_by = "model" if adapter is None else "base of the adapter"
    yield from _of_hub(
        base, revision, used_by, names=("generation_config.json",), one_of=(((CONFIG,),), WEIGHTS)
    )
    if model.trust_remote_code:
        yield from _code(base, revision=revision)
    if model.tokenizer_path is not None:
        yield from _tokenizer(model.tokenizer_path)
    elif adapter is None:
        yield from _of_hub(
            source, model.revision, used_by, names=BESIDE_VOCABULARY, one_of=(VOCABULARIES,)
        )
    else:  # it may be that of the base
        names = (*BESIDE_VOCABULARY, TOKENIZER, *VOCABULARY_FILES)
        yield from _of_hub(source, model.revision, "adapter", names=names)
        yield from _of_hub(base, revision, used_by, names=names)


def _tokenizer(path: str) -> Iterator[HubFiles]:
    source = resolve_tokenizer(path)
    yield from _of_hub(source, None, "tokenizer", names=BESIDE_VOCABULARY, one_of=(VOCABULARIES,))


def _beside_weights(home: str, *, revision: str | None, used_by: str) -> Iterator[HubFiles]:
    """Yield the configuration files that `ModelSource` reads, besides weights and tokenizer."""
    folder = ModelFolder(source=home, revision=revision)
    has_contract = folder.find("", CONTRACT_FILE) is not None
    try:
        modules = read_modules(folder) or []
    except UserError:
        if not has_contract:
            raise
        modules = []  # a folder that Quarry exported: its contract describes it
    names = [f"{module.path}/{CONFIG}" for module in modules if module.path]
    denses = [module.path for module in modules if module.kind == "Dense"]
    yield from _of_hub(
        home,
        revision,
        used_by,
        names=(*BESIDE_WEIGHTS, *names),
        one_of=tuple(tuple((f"{path}/{name}",) for name in DENSE_WEIGHTS) for path in denses),
    )


def _code(source: str, *, revision: str | None) -> Iterator[HubFiles]:
    """Yield the repository's code, and that of other repositories that its config.json names."""
    yield from _of_hub(source, revision, "code of the model", names=("*.py",))
    file = model_file(source, CONFIG, revision=revision)
    auto_map = {} if file is None else read_json(file).get("auto_map") or {}
    others = {str(name).split("--")[0] for name in auto_map.values() if "--" in str(name)}
    for repo in sorted(others):
        yield from _of_hub(repo, None, "code of the model", names=("*.py",))


def _of_hub(
    source: str,
    revision: str | None,
    used_by: str,
    *,
    names: Names = (),
    one_of: tuple[tuple[Names, ...], ...] = (),
) -> Iterator[HubFiles]:
    """Yield the files if `source` is a hub id; nothing if it is a folder."""
    if not Path(source).is_dir():
        yield HubFiles(
            repo=source,
            kind="model",
            revision=revision,
            used_by=used_by,
            names=names,
            one_of=one_of,
        )
