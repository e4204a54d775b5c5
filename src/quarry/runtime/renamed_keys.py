"""Read configurations of earlier versions: renamed keys, values and targets, added arguments."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from quarry.errors import ConfigurationError
from quarry.runtime.override_text import key_of

RENAMED = {
    "data.num_queries_per_update": "data.global_batch_size",
    "data.num_tokens_per_chunk": "data.grad_cache_chunk_tokens",
    "loss.num_contrast_queries": "loss.contrastive_batch_size",
    "model.has_gradient_checkpointing": "model.gradient_checkpointing",
    "model.has_trusted_code": "model.trust_remote_code",
    "model.is_normalized": "model.normalize",
    "model.linear": "model.linear_precision",
}
"""Old dotted key -> current one."""

RENAMED_VALUES: Mapping[str, Mapping[str, str | None]] = {"model.linear_precision": {"plain": None}}
"""Current dotted key -> value under the old key -> current value."""

RENAMED_TARGETS = {
    "quarry.data.train_examples.read_train_jsonl": "quarry.data.train_files.read_train_files",
    "quarry.models.factory.BiEncoderFactory": "quarry.models.model_spec.model_spec",
    "quarry.retrieval.bm25.TextTokenizer": "quarry.retrieval.terms.TextAnalyzer",
    "quarry.retrieval.bm25.CodeTokenizer": "quarry.retrieval.terms.CodeAnalyzer",
    "quarry.retrieval.terms.TextTokenizer": "quarry.retrieval.terms.TextAnalyzer",
    "quarry.retrieval.terms.CodeTokenizer": "quarry.retrieval.terms.CodeAnalyzer",
}
"""Old class or function -> current one."""

MOVED_MODULES = {
    "quarry.data.stdlib_code": "quarry.stand_ins.stdlib_code",
    "quarry.evaluation.benchmarks.stdlib_code": "quarry.stand_ins.stdlib_benchmark",
    "quarry.models.backbones.replica": "quarry.stand_ins.replica",
    "quarry.models.backbones.replica_tokenizer": "quarry.stand_ins.replica_tokenizer",
    "quarry.models.backbones.tiny_qwen": "quarry.stand_ins.tiny_qwen",
    "quarry.tasks.plan": "quarry.planning.plan_task",
    "quarry.tasks.report": "quarry.study_report.report_task",
    "quarry.tasks.study_start": "quarry.sweep.start",
}
"""Old module of a `_target_` -> current one."""

ADDED_KEYS: Mapping[str, Any] = {"data.max_examples": None, "paths.max_cache_gib": None}
"""Dotted key that earlier versions did not have -> the value that does what they did."""

ADDED: Mapping[str, Mapping[str, Any]] = {
    "quarry.data.prompts.Prompt": {"strip": False},
    "quarry.data.train_forms.TrainColumns": {"weight": None},
    "quarry.losses.info_nce.InfoNCE": {
        "query_to_query": False,
        "document_to_document": False,
        "symmetric": False,
    },
    "quarry.models.model_spec.model_spec": {"embedding_dim": None},
}
"""Class -> arguments that earlier versions lacked, with the values that they acted as."""

_OVERRIDE = re.compile(r"^(?P<prefix>~|\+{0,2})(?P<key>[^=]+?)(?P<rest>=.*)?$", re.DOTALL)


def refuse_renamed_keys(arguments: Sequence[str]) -> None:
    """Refuse overrides with names of an earlier version, before anything is composed.

    Args:
        arguments: the command line; arguments that are no overrides are ignored.

    Raises:
        ConfigurationError: lists each such override with its replacement.
    """
    found = []
    for argument in arguments:
        new = renamed_override(argument)
        if new != argument:
            key = RENAMED[key_of(argument)]
            found.append(f"{argument}: this key is now {key}. Fix: {new}")
    if found:
        raise ConfigurationError("\n".join(found))


def renamed_override(override: str) -> str:
    """Return an override with current key and values; any other argument unchanged."""
    match = _OVERRIDE.match(override)
    if match is None or match["key"] not in RENAMED:
        return override
    key, rest = RENAMED[match["key"]], match["rest"] or ""
    for old, new in RENAMED_VALUES.get(key, {}).items():
        rest = re.sub(rf"\b{old}\b", "null" if new is None else new, rest)
    return f"{match['prefix']}{key}{rest}"


def with_new_names(message: str) -> str:
    """Return an error message with the current names of the old keys in it appended."""
    notes = [
        f"{old} is now {new}"
        for old, new in RENAMED.items()
        if re.search(rf"(?<![\w.]){re.escape(old)}(?![\w.])", message)
    ]
    return f"{message} ({'; '.join(notes)})" if notes else message


def with_renamed_keys(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored configuration with current keys, values and arguments (`ADDED`).

    Args:
        stored: a nested configuration, or a mapping by dotted keys at any depth (the contract of a
            saved model), written by any version; not changed.
    """
    config: dict[str, Any] = _copied(stored)
    for old, new in RENAMED.items():
        *path, name = old.split(".")
        node: Any = config
        for key in path:
            node = node.get(key) if isinstance(node, dict) else None
        if isinstance(node, dict) and name in node:
            value = node.pop(name)
            values = RENAMED_VALUES.get(new, {}) if isinstance(value, str) else {}
            _put(config, new.split("."), values.get(value, value))
    for key, value in ADDED_KEYS.items():
        part = config.get(key.partition(".")[0])
        if "trainer" in config and isinstance(part, dict):  # a complete configuration
            _put(config, key.split("."), value)
    return config


def renamed_target(target: str) -> str:
    """Return the current dotted path for a `_target_` written by any version."""
    module, _, name = target.rpartition(".")
    if module in MOVED_MODULES:
        return f"{MOVED_MODULES[module]}.{name}"
    return RENAMED_TARGETS.get(target, target)


def _copied(node: Any) -> Any:
    if isinstance(node, Mapping):
        copied = {RENAMED.get(key, key): _copied(value) for key, value in node.items()}
        target = copied.get("_target_")
        if isinstance(target, str):
            copied["_target_"] = target = renamed_target(target)
        added = ADDED.get(str(target), {})
        return copied | {key: value for key, value in added.items() if key not in copied}
    if isinstance(node, Sequence) and not isinstance(node, str | bytes):
        return [_copied(value) for value in node]
    return node


def _put(config: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for key in path[:-1]:
        config = config.setdefault(key, {})
    config.setdefault(path[-1], value)
