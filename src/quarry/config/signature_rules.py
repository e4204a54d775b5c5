"""Check that the keys of each node fit the signature of the class or function that it names."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Union, get_args, get_origin

from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf

from quarry.config.near_misses import nearest_key
from quarry.config.source_signatures import source_signature

PLAIN_TYPES: dict[Any, tuple[type, ...]] = {
    bool: (bool,),
    int: (int,),
    float: (int, float),
    str: (str,),
    types.NoneType: (types.NoneType,),
}
"""Plain types in signatures -> the Python types that a YAML value may have."""


def joined(path: str, key: object) -> str:
    """Return the dotted key of an entry of a node."""
    return f"{path}.{key}" if path else str(key)


def meant(key: str, known: Sequence[str]) -> str:
    """Return the end of a message: what an unknown key was probably meant to be, if anything."""
    hint = nearest_key(key, known)
    return "" if hint is None else f"; did you mean {hint}?"


def signature_violations(node: Any, path: str = "") -> Iterator[str]:
    """Yield nodes whose keys do not fit the signature of their `_target_`."""
    if isinstance(node, ListConfig):
        for index, item in enumerate(node):
            yield from signature_violations(item, f"{path}[{index}]")
    if not isinstance(node, DictConfig):
        return
    target = node.get("_target_")
    if target is not None:
        yield from _call_violations(node, str(target), path)
    for key, value in node.items():
        yield from signature_violations(value, joined(path, key))


def group_violations(group: Any, name: str) -> Iterator[str]:
    """Yield what is wrong with a group of named classes, the callbacks or the loggers."""
    if not isinstance(group, DictConfig):
        yield f"{name}={shown(group)} is no group of classes: {name}=none has none"
        return
    for member, node in group.items():
        has_class = isinstance(node, DictConfig) and node.get("_target_") is not None
        if node is not None and not has_class:
            yield (
                f"{joined(name, member)}={shown(node)} names no class (a mapping with _target_). "
                f"Fix: leave it out, or choose {name}=OPTION that has it"
            )


def _call_violations(node: DictConfig, target: str, path: str) -> Iterator[str]:
    try:
        parameters = signature_of(target).parameters
    except Exception as error:  # noqa: BLE001 (whatever the import of a user's module raises)
        yield f"{path}._target_={target} cannot be imported: {error}"
        return
    keys = {str(key) for key in node if not str(key).startswith("_")}
    for key in sorted(keys & set(parameters)):
        if node[key] is None and OmegaConf.is_interpolation(node, key):
            continue  # the key that it comes from has a rule of its own
        hint = parameters[key].annotation
        if not fits(node[key], hint):
            yield f"{path}.{key}={shown(node[key])}: {target} takes {_type_name(hint)}" + (
                f"; a group's option is chosen with slashes, {path.replace('.', '/')}/{key}=OPTION"
                if _is_ours(hint)
                else ""
            )
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for key in sorted(keys - set(parameters)):
        yield (
            f"{path}.{key}: {target} takes no such argument; it takes {', '.join(parameters)}"
            + meant(f"{path}.{key}", [f"{path}.{name}" for name in parameters])
            if parameters
            else f"{path}.{key}: {target} takes no arguments. Fix: ~{path}.{key}"
        )
    if not node.get("_partial_"):
        required = {n for n, p in parameters.items() if p.default is p.empty}
        for key in sorted(required - keys):
            yield f"{path}.{key} is needed by {target} and is not set"


def signature_of(target: str) -> inspect.Signature:
    """Return the signature of a class or function, by its dotted name.

    Raises:
        Exception: whatever its import raises, where it must be imported.
    """
    return source_signature(target) or imported_signature(get_object(target))


def imported_signature(function: Callable[..., Any]) -> inspect.Signature:
    """Return a signature, its annotations as types where they can be evaluated, else as text.

    A built-in function without a signature is assumed to accept any argument.
    """
    try:
        return inspect.signature(function, eval_str=True)
    except Exception:  # noqa: BLE001 (libraries import some names for type checkers alone)
        pass
    try:
        return inspect.signature(function)
    except ValueError:
        return inspect.signature(lambda **anything: anything)


def fits(value: Any, hint: Any) -> bool:
    """Return whether a value fits a type hint; only null and plain hints are checked."""
    if hint in (inspect.Parameter.empty, Any, object) or isinstance(hint, str):
        return True
    if get_origin(hint) in (Union, types.UnionType):
        return any(fits(value, member) for member in get_args(hint))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if isinstance(value, str) and get_origin(hint) is Sequence:
        return False  # Python takes it for a list of characters
    if hint in PLAIN_TYPES:
        is_bool = isinstance(value, bool)  # which Python counts among the integers
        return isinstance(value, PLAIN_TYPES[hint]) and (hint is bool or not is_bool)
    return value is not None and not (_is_ours(hint) and isinstance(value, str | int | float))


def _is_ours(hint: Any) -> bool:
    return getattr(hint, "__module__", "").startswith("quarry.")


def shown(value: Any) -> str:
    """Return a value for a message."""
    return "null" if value is None else repr(value)


def _type_name(hint: Any) -> str:
    if isinstance(hint, type) and get_origin(hint) is None:
        return hint.__name__
    return str(hint).replace("typing.", "").replace("collections.abc.", "")
