"""Read signatures from the source of slow packages, so that a mistake is refused without them.

Lightning and transformers take seconds to import. What this module cannot read for certain it
leaves to an import.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

READ = ("quarry", "pytorch_lightning", "lightning_fabric")
"""Packages whose modules are read and not imported."""

IMPORTED = ("builtins", "typing", "typing_extensions", "collections", "types", "datetime", "torch")
"""Packages that are imported: they are small, or loaded in every process."""

_NO_BASES = ("Protocol", "ABC", "object", "Generic")


class _UnreadableError(Exception):
    """The source does not say it in a form that is understood here."""


@dataclass(frozen=True)
class _Module:
    """A module's name, and its top-level statements: name -> (statement, name there)."""

    name: str
    statements: Mapping[str, tuple[ast.stmt, str]]


def source_signature(target: str) -> inspect.Signature | None:
    """Return the signature of a class or function of the packages in `READ`.

    Annotations are types. A class of those packages, or of others, is an empty class of the same
    name and module.

    Args:
        target: its dotted name.

    Returns:
        None: it is of another package, or its source cannot be read for certain.
    """
    module, _, name = target.rpartition(".")
    if module.partition(".")[0] not in READ:
        return None
    try:
        return inspect.Signature(list(_parameters(module, name)))
    except _UnreadableError:
        return None


def _parameters(module: str, name: str) -> Iterator[inspect.Parameter]:
    where, statement = _definition(module, name)
    if isinstance(statement, ast.FunctionDef):
        yield from _of_function(statement, where)
    elif isinstance(statement, ast.ClassDef):
        yield from _of_class(statement, where)
    else:
        raise _UnreadableError(f"{module}.{name}")


def _of_class(node: ast.ClassDef, module: _Module) -> Iterator[inspect.Parameter]:
    own = {each.name: each for each in node.body if isinstance(each, ast.FunctionDef)}
    if "__new__" in own or node.keywords:
        raise _UnreadableError(node.name)
    if "__init__" in own:
        yield from list(_of_function(own["__init__"], module))[1:]
        return
    bases = [each for each in node.bases if ast.unparse(each).split("[")[0] not in _NO_BASES]
    inherited: list[inspect.Parameter] = []
    if bases:
        if len(bases) > 1 or not isinstance(bases[0], ast.Name):
            raise _UnreadableError(node.name)
        inherited = list(_parameters(module.name, bases[0].id))
    decorators = [ast.unparse(each).partition("(")[0] for each in node.decorator_list]
    if not decorators:
        yield from inherited
    elif decorators == ["dataclass"]:
        fields = {each.name: each for each in [*inherited, *_fields(node, module)]}
        yield from fields.values()
    else:
        raise _UnreadableError(node.name)


def _fields(node: ast.ClassDef, module: _Module) -> Iterator[inspect.Parameter]:
    for each in node.body:
        if not isinstance(each, ast.AnnAssign) or not isinstance(each.target, ast.Name):
            continue
        written = ast.unparse(each.annotation)
        default = "" if each.value is None else ast.unparse(each.value)
        if written.startswith("ClassVar") or "init=False" in default:
            continue
        is_needed = not default or (default.startswith("field(") and "default" not in default)
        yield inspect.Parameter(
            each.target.id,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if is_needed else None,
            annotation=_evaluated(each.annotation, module),
        )


def _of_function(node: ast.FunctionDef, module: _Module) -> Iterator[inspect.Parameter]:
    if any(ast.unparse(each).endswith("overload") for each in node.decorator_list):
        raise _UnreadableError(node.name)
    args, kinds = node.args, inspect.Parameter
    ordered = [*args.posonlyargs, *args.args]
    num_needed = len(ordered) - len(args.defaults)
    found: list[tuple[ast.arg, Any, bool]] = [
        (arg, kinds.POSITIONAL_OR_KEYWORD, i >= num_needed) for i, arg in enumerate(ordered)
    ]
    found += [(args.vararg, kinds.VAR_POSITIONAL, False)] if args.vararg else []
    defaults = zip(args.kwonlyargs, args.kw_defaults, strict=True)
    found += [(arg, kinds.KEYWORD_ONLY, default is not None) for arg, default in defaults]
    found += [(args.kwarg, kinds.VAR_KEYWORD, False)] if args.kwarg else []
    for arg, kind, has_default in found:
        hint = kinds.empty if arg.annotation is None else _evaluated(arg.annotation, module)
        yield inspect.Parameter(
            arg.arg, kind, default=None if has_default else kinds.empty, annotation=hint
        )


def _evaluated(annotation: ast.expr, module: _Module) -> Any:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    code = compile(ast.Expression(annotation), module.name, "eval")
    try:
        return eval(code, {}, _Names(module))
    except _UnreadableError:
        raise
    except Exception as error:  # whatever an annotation may do
        raise _UnreadableError(module.name) from error


class _Names(dict[str, Any]):
    """What the names in a module mean, as far as annotations need it."""

    def __init__(self, module: _Module) -> None:
        super().__init__()
        self._module = module

    def __missing__(self, name: str) -> Any:
        if name in self._module.statements:
            return _meaning(self._module, name)
        if hasattr(import_module("builtins"), name):
            return getattr(import_module("builtins"), name)
        raise _UnreadableError(f"{self._module.name}.{name}")


class _Attributes:
    """A module that is not imported, as `pl` in `pl.Callback`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return _object(self._name, name)


def _meaning(module: _Module, name: str) -> Any:
    statement, original = module.statements[name]
    if isinstance(statement, ast.Import):
        is_imported = original.partition(".")[0] in IMPORTED
        return import_module(original) if is_imported else _Attributes(original)
    if isinstance(statement, ast.ImportFrom):
        return _object(statement.module or "", original)
    if isinstance(statement, ast.ClassDef):
        return type(name, (), {"__module__": module.name})
    value = getattr(statement, "value", None)
    if value is None:
        raise _UnreadableError(f"{module.name}.{name}")
    return _evaluated(value, module)


def _object(module: str, name: str) -> Any:
    """Return what an import of a name gives: itself, or an empty class in its place."""
    top = module.partition(".")[0]
    if top in IMPORTED:
        return getattr(import_module(module), name)
    if top not in READ:
        return type(name, (), {"__module__": module})
    if _file(f"{module}.{name}") is not None:
        return _Attributes(f"{module}.{name}")
    found = _module(module)
    if name not in found.statements:
        raise _UnreadableError(f"{module}.{name}")
    return _meaning(found, name)


def _definition(module: str, name: str) -> tuple[_Module, ast.stmt]:
    """Return the statement that defines a name, and its module; imports are followed."""
    found = _module(module)
    statement, original = found.statements.get(name, (None, name))
    if isinstance(statement, ast.ImportFrom) and statement.level == 0:
        return _definition(statement.module or "", original)
    if statement is None or isinstance(statement, ast.Import | ast.ImportFrom):
        raise _UnreadableError(f"{module}.{name}")
    return found, statement


@cache
def _module(name: str) -> _Module:
    path = _file(name)
    if path is None or name.partition(".")[0] not in READ:
        raise _UnreadableError(name)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return _Module(name, dict(_named(tree.body)))


@cache
def _file(name: str) -> Path | None:
    """Return the file of a module or package; only its top-level package is looked up."""
    top, *parts = name.split(".")
    spec = find_spec(top)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(folder, *parts)
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if file.is_file():
                return file
    return None


def _named(body: list[ast.stmt]) -> Iterator[tuple[str, tuple[ast.stmt, str]]]:
    """Yield name -> (statement, name in its source) of each top-level statement."""
    for each in body:
        if isinstance(each, ast.FunctionDef | ast.ClassDef):
            yield each.name, (each, each.name)
        elif isinstance(each, ast.Import):
            for alias in each.names:
                name = alias.asname or alias.name.partition(".")[0]
                yield name, (each, alias.name if alias.asname else name)
        elif isinstance(each, ast.ImportFrom):
            for alias in each.names:
                yield alias.asname or alias.name, (each, alias.name)
        elif isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name):
            yield each.targets[0].id, (each, each.targets[0].id)
        elif isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            yield each.target.id, (each, each.target.id)
        elif isinstance(each, ast.If):
            yield from _named([*each.orelse, *each.body])
        elif isinstance(each, ast.Try):
            yield from _named(each.body)
