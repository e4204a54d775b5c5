"""Read configurations of earlier versions: what was renamed, arguments that were added."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from quarry.errors import UserError

RENAMED = {
    "data.num_tokens_per_chunk": "data.grad_cache_chunk_tokens",
    "model.has_gradient_checkpointing": "model.gradient_checkpointing",
}
"""Dotted key as it was -> as it is."""

RENAMED_TARGETS = {
    "quarry.data.train_examples.read_train_jsonl": "quarry.data.train_files.read_train_files",
    "quarry.retrieval.bm25.TextTokenizer": "quarry.retrieval.terms.TextAnalyzer",
    "quarry.retrieval.bm25.CodeTokenizer": "quarry.retrieval.terms.CodeAnalyzer",
    "quarry.retrieval.terms.TextTokenizer": "quarry.retrieval.terms.TextAnalyzer",
    "quarry.retrieval.terms.CodeTokenizer": "quarry.retrieval.terms.CodeAnalyzer",
}
"""Class or function as it was -> as it is."""

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
"""Module of a `_target_` as it was -> as it is."""

ADDED: Mapping[str, Mapping[str, Any]] = {"quarry.data.prompts.Prompt": {"strip": False}}
"""Class -> arguments that earlier versions did not have, with what they did instead."""

_OVERRIDE = re.compile(r"^(?P<prefix>~|\+{0,2})(?P<key>[^=]+?)(?P<rest>=.*)?$", re.DOTALL)


def refuse_renamed_keys(arguments: Sequence[str]) -> None:
    """Refuse, before anything is composed, overrides that use the name of an earlier version.

    Args:
        arguments: of the command line; those that are no override are passed over.

    Raises:
        UserError: lists each such override with the one to use instead.
    """
    found = []
    for argument in arguments:
        match = _OVERRIDE.match(argument)
        if match is not None and match["key"] in RENAMED:
            new = f"{match['prefix']}{RENAMED[match['key']]}{match['rest'] or ''}"
            found.append(f"{argument}: this key is now {RENAMED[match['key']]}. Fix: {new}")
    if found:
        raise UserError("\n".join(found))


def with_renamed_keys(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored configuration with the key names and the arguments (`ADDED`) of today.

    Args:
        stored: a nested configuration as any version wrote it; left as it is.
    """
    config: dict[str, Any] = _copied(stored)
    for old, new in RENAMED.items():
        *path, name = old.split(".")
        node: Any = config
        for key in path:
            node = node.get(key) if isinstance(node, dict) else None
        if isinstance(node, dict) and name in node:
            _put(config, new.split("."), node.pop(name))
    return config


def renamed_target(target: str) -> str:
    """Return the dotted path of today for a `_target_` as any version wrote it."""
    module, _, name = target.rpartition(".")
    if module in MOVED_MODULES:
        return f"{MOVED_MODULES[module]}.{name}"
    return RENAMED_TARGETS.get(target, target)


def _copied(node: Any) -> Any:
    if isinstance(node, Mapping):
        copied = {key: _copied(value) for key, value in node.items()}
        target = str(copied.get("_target_"))
        if isinstance(copied.get("_target_"), str):
            copied["_target_"] = renamed_target(target)
        added = ADDED.get(target, {})
        return copied | {key: value for key, value in added.items() if key not in copied}
    return node


def _put(config: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for key in path[:-1]:
        config = config.setdefault(key, {})
    config.setdefault(path[-1], value)
