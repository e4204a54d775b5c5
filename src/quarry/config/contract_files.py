"""Compare the contract of an exported folder with its sentence-transformers files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from quarry.errors import UserError
from quarry.models.folders.sentence_transformers import read_sentence_transformers
from quarry.models.folders.stated import Statement
from quarry.models.saved import CONTRACT_FILE
from quarry.types import ROLES


def check_files(home: str, contract: Mapping[str, Any], *, revision: str | None) -> None:
    """Refuse a folder whose contract contradicts its other files: one of them was changed.

    Prompts and pooling are compared. A folder with a module of ours is not compared, since those
    files do not describe it.

    Raises:
        UserError: with both values.
    """
    try:
        statement = read_sentence_transformers(home, revision=revision)
    except UserError:
        return
    if statement is None:
        return
    for part, ours, theirs in _parts(contract, statement):
        if ours != theirs:
            raise UserError(
                f"{home}: {CONTRACT_FILE} has {part} {ours!r}, and the files of "
                f"sentence-transformers beside it have {theirs!r}. Fix: remove {CONTRACT_FILE} to "
                "follow these, or restore them"
            )


def _parts(
    contract: Mapping[str, Any], statement: Statement
) -> Iterator[tuple[str, object, object]]:
    """Yield (name of the part, value in the contract, value in the files)."""
    for role in ROLES:
        literals = contract.get("frames", {}).get(role, {}).get("literals")
        if not literals:
            continue
        fact = statement.facts.get(f"prompt.{role}")
        template = "" if fact is None else str(fact.value).removesuffix("{text}")
        yield f"the {role} prompt", literals[0], template.replace("{{", "{").replace("}}", "}")
    node = contract.get("settings", {}).get("model.pooling", {})
    yield "the pooling", _pooling(node), _pooling(statement.facts["model.pooling"].value)


def _pooling(node: Mapping[str, Any]) -> str:
    name = str(node.get("_target_", "")).rpartition(".")[2]
    return name if node.get("include_prompt", True) else f"{name} without the prompt"
