"""Read prompts, pooling, lengths and projections from sentence-transformers files (2.x to 6.x)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from quarry.errors import UserError
from quarry.models.backbones.model_files import read_json
from quarry.models.folders.modules import (
    MODULES_FILE,
    ModelFolder,
    Module,
    check_widths,
    read_dense,
    read_modules,
    read_pooling,
)
from quarry.models.folders.stated import Fact, Statement
from quarry.types import ROLES

logger = logging.getLogger(__name__)

MODEL_FILE = "config_sentence_transformers.json"
TRANSFORMER_FILES = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
TEXT = {"method": "forward", "method_output_name": "last_hidden_state"}
NO_LIMIT = 10**9
"""A tokenizer's model_max_length of this size or more means that it has no limit."""

ARGUMENT_KEYS = (
    "model_args", "tokenizer_args", "config_args",
    "model_kwargs", "processor_kwargs", "config_kwargs",
)  # fmt: skip
"""Keys of the transformer's file that hold arguments of `from_pretrained`."""

HARMLESS_ARGUMENTS = {
    "add_pooling_layer", "attn_implementation", "clean_up_tokenization_spaces", "device_map",
    "dtype", "low_cpu_mem_usage", "padding_side", "torch_dtype", "trust_remote_code", "use_cache",
    "use_fast", "use_safetensors",
}  # fmt: skip
"""Arguments without effect on embeddings: dtype, attention and padding have their own keys."""

TRANSFORMER_KEYS = {
    "max_seq_length", "do_lower_case", "query_length", "document_length", "transformer_task",
    "modality_config", "module_output_name", "unpad_inputs", "processing_kwargs",
    "query_expansion", *ARGUMENT_KEYS,
}  # fmt: skip
"""Keys of the transformer's file that are read here, or that have no effect on embeddings."""


def read_sentence_transformers(source: str, *, revision: str | None = None) -> Statement | None:
    """Return the settings that sentence-transformers files state; None without such files.

    They match what that library's `encode_query` and `encode_document` do with the folder.

    Args:
        source: a folder or a hub id.
        revision: branch, tag or commit of a hub id.

    Raises:
        UserError: the folder asks for something unsupported (a module, an activation, a
            similarity), or its files contradict each other.
    """
    folder = ModelFolder(source=source, revision=revision)
    modules = read_modules(folder)
    if modules is None:
        return None
    transformer, pooling, *rest = modules
    settings, settings_file = _transformer_settings(folder, transformer)
    node, width, pooling_file = read_pooling(folder, pooling)
    projections = tuple(read_dense(folder, m) for m in rest if m.kind == "Dense")
    check_widths(folder, projections, width=width)
    model_file = folder.find("", MODEL_FILE)
    model = {} if model_file is None else read_json(model_file)
    _check_model(model, source)
    refusals = _open_prompts(model, source)
    facts = {
        "model.pooling": Fact(value=node, source=pooling_file),
        "model.normalize": _normalization(model, has_module=modules[-1].kind == "Normalize"),
        "prompt.end_token": Fact(value="tokenizer", source="tokenizer.json"),
        **_lengths(folder, settings, settings_file, transformer=transformer.path),
        **_prompts(model),
    }
    return Statement(
        facts={key: fact for key, fact in facts.items() if key not in refusals},
        width=width,
        projections=projections,
        transformer=transformer.path,
        lower_case=_lower_case(settings, settings_file),
        notes=tuple(_unused_prompts(model)),
        refusals=refusals,
    )


def transformer_path(source: str, *, revision: str | None = None) -> str:
    """Return the subfolder of the transformer; "" if it is the folder itself."""
    modules = read_modules(ModelFolder(source=source, revision=revision))
    return "" if modules is None else modules[0].path


def _transformer_settings(folder: ModelFolder, module: Module) -> tuple[dict[str, Any], str]:
    """Return the content of the transformer's file, and the file's name.

    Raises:
        UserError: a setting changes embeddings in an unsupported way.
    """
    for name in TRANSFORMER_FILES:
        file = folder.find(module.path, name)
        if file is not None:
            settings = read_json(file)
            _check_transformer(settings, str(file))
            return settings, name
    return {}, MODULES_FILE


def _check_transformer(settings: Mapping[str, Any], file: str) -> None:
    task = settings.get("transformer_task", "feature-extraction")
    if task != "feature-extraction":
        raise UserError(
            f"{file}: transformer_task={task!r}; what is supported is feature-extraction."
        )
    modalities = settings.get("modality_config", {"text": TEXT})
    is_text = isinstance(modalities, dict) and modalities.get("text") == TEXT
    if not is_text or "message" in modalities:
        raise UserError(
            f"{file}: modality_config={modalities}: texts go through a chat template, or something "
            f"else than the last hidden state is read; what is supported is text: {TEXT}."
        )
    for key in ("query_expansion", "processing_kwargs"):
        if settings.get(key):
            raise UserError(f"{file}: {key}={settings[key]} is not supported.")
    for key in ARGUMENT_KEYS:
        more = sorted(set(settings.get(key) or {}) - HARMLESS_ARGUMENTS)
        if more:
            raise UserError(
                f"{file}: {key}: {', '.join(more)}: may change embeddings, and is not supported "
                f"(allowed: {', '.join(sorted(HARMLESS_ARGUMENTS))})."
            )
    unknown = sorted(set(settings) - TRANSFORMER_KEYS)
    if unknown:
        logger.warning("%s: %s: not known here, and not used", file, ", ".join(unknown))


def _lower_case(settings: Mapping[str, Any], settings_file: str) -> Fact | None:
    if settings.get("do_lower_case") is not True:
        return None
    return Fact(value=True, source=f"{settings_file} (do_lower_case)")


def _check_model(model: Mapping[str, Any], source: str) -> None:
    where = f"{source}: {MODEL_FILE}"
    kind = model.get("model_type", "SentenceTransformer")
    if kind != "SentenceTransformer":
        raise UserError(f"{where}: model_type={kind!r}; what is supported is SentenceTransformer.")
    if model.get("truncate_dim") is not None:
        raise UserError(
            f"{where}: truncate_dim={model['truncate_dim']}: truncated embeddings are not "
            "supported. Fix: remove the key to use their full width."
        )
    similarity = model.get("similarity_fn_name")
    if similarity not in (None, "cosine", "dot"):
        raise UserError(
            f"{where}: similarity_fn_name={similarity!r}; what is supported is cosine and dot."
        )
    prompts = model.get("prompts") or {}
    is_text = isinstance(prompts, dict) and all(
        text is None or isinstance(text, str) for text in prompts.values()
    )
    if not is_text:
        raise UserError(f"{where}: prompts={prompts!r} must map names to texts.")
    if any("${" in (text or "") for text in prompts.values()):
        raise UserError(f"{where}: prompts={prompts!r}: a prompt with '${{' is not supported.")


def _normalization(model: Mapping[str, Any], *, has_module: bool) -> Fact:
    """Return whether embeddings are normalized: by a module, or by cosine similarity."""
    similarity = model.get("similarity_fn_name")
    if has_module:
        return Fact(value=True, source=f"{MODULES_FILE} (Normalize)")
    if similarity is None:
        return Fact(value=True, source="default similarity of sentence-transformers (cosine)")
    return Fact(
        value=similarity == "cosine", source=f"{MODEL_FILE} (similarity_fn_name={similarity})"
    )


def _prompts(model: Mapping[str, Any]) -> dict[str, Fact]:
    """Return the prompts that `encode_query` and `encode_document` prepend to texts."""
    prompts = model.get("prompts") or {}
    return {
        f"prompt.{role}": Fact(
            value=_template(prompts[role]), source=f"{MODEL_FILE} (prompts.{role})"
        )
        for role in ROLES
        if prompts.get(role) is not None
    }


def _template(prefix: str) -> str:
    return prefix.replace("{", "{{").replace("}", "}}") + "{text}"


def _open_prompts(model: Mapping[str, Any], source: str) -> dict[str, str]:
    """Return why `prompt.query` is unknown: there are prompts of tasks, and none for queries."""
    prompts = model.get("prompts") or {}
    names = sorted(name for name, text in prompts.items() if text and name not in ROLES)
    tasks = [name for name in names if name not in ("passage", "corpus")]
    is_open = names if prompts.get("query") is None else tasks  # later versions write ""
    if not is_open or prompts.get("query"):
        return {}
    example = _template(prompts[names[0]])
    reason = (
        f"{source}: {MODEL_FILE} holds prompts for {', '.join(names)}, and none for query. Fix: "
        f"say which one queries get, prompt.query={example!r}, or prompt.query='{{text}}' for none"
    )
    return {"prompt.query": reason}


def _unused_prompts(model: Mapping[str, Any]) -> list[str]:
    """Return notes on prompts that the file holds and that encoding does not use."""
    prompts, default = model.get("prompts") or {}, model.get("default_prompt_name")
    names = [] if prompts.get("document") else ["passage", "corpus"]
    notes = [
        f"{MODEL_FILE} holds a prompt {name!r} ({prompts[name]!r}) that encode_document of "
        "sentence-transformers does not use, and it is not used here. To use it: "
        f"prompt.document={_template(prompts[name])!r}"
        for name in names
        if prompts.get(name)
    ]
    if default not in (None, *ROLES, *names) and prompts.get(default):
        notes.append(
            f"{MODEL_FILE} names a default prompt {default!r} ({prompts[default]!r}), which encode "
            "of sentence-transformers uses, and encode_query and encode_document do not: it is not "
            "used here. To use it: prompt.query and prompt.document="
            f"{_template(prompts[default])!r}"
        )
    return notes


def _lengths(
    folder: ModelFolder, settings: Mapping[str, Any], settings_file: str, *, transformer: str
) -> dict[str, Fact]:
    """Return the maximum lengths of queries and documents, in tokens, special tokens included."""
    facts = {}
    for role in ROLES:
        names = (f"{role}_length", "max_seq_length")
        key = next((name for name in names if settings.get(name) is not None), None)
        if key is None:
            fact = _tokenizer_length(folder, transformer)
        else:
            fact = Fact(value=settings[key], source=f"{settings_file} ({key})")
        if fact is None:
            continue
        if isinstance(fact.value, bool) or not isinstance(fact.value, int) or fact.value < 1:
            raise UserError(
                f"{folder.source}: {fact.source}: texts of {fact.value!r} tokens; a length is "
                "an integer of 1 or more."
            )
        facts[f"prompt.max_{role}_length"] = fact
    return facts


def _tokenizer_length(folder: ModelFolder, transformer: str) -> Fact | None:
    """Return the smaller of the tokenizer's and the model's maximum length; None without both."""
    found = []
    for name, key in (
        ("tokenizer_config.json", "model_max_length"),
        ("config.json", "max_position_embeddings"),
    ):
        file = folder.find(transformer, name)
        settings = {} if file is None else read_json(file)
        value = settings.get(key)
        if isinstance(value, int | float) and value < NO_LIMIT:
            found.append(Fact(value=int(value), source=f"{name} ({key})"))
    return min(found, key=lambda fact: fact.value, default=None)
