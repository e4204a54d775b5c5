"""Check a configuration that is read back from disk before anything is built from it.

Others may have written it. It may choose among what `conf/` ships for each place, and among the
classes of packages that the present call trusts; it may not choose what else runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.grammar.gen.OmegaConfGrammarParser import OmegaConfGrammarParser
from omegaconf.grammar_parser import parse

from quarry.config.resolvers import RESOLVERS
from quarry.config.shipped_targets import named_targets, place_of, shipped_targets
from quarry.errors import ConfigurationError, UserError

REMOTE_CODE = "transformers_modules"
"""The package in which transformers runs the Python of a model's folder."""

ALLOWED_RESOLVERS = frozenset({*RESOLVERS, "oc.env", "oc.select", "now"})
"""Resolvers of a stored configuration; others, such as `oc.create`, make nodes of text."""

NUM_SHOWN = 10
MAX_DEPTH = 30

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def trusted_packages(config: DictConfig) -> tuple[str, ...]:
    """Return the packages that the present call trusts, `trusted_packages=[...]`.

    Args:
        config: of the present call, not of a run directory.

    Raises:
        UserError: an entry is no name of a package.
    """
    names = tuple(map(str, config.get("trusted_packages") or ()))
    for name in names:
        if _NAME.fullmatch(name) is None:
            raise UserError(
                f"trusted_packages={list(names)}: {name!r} is no name of a package (such as "
                "my_losses, or my_losses.margin). Fix: trusted_packages=[NAME]"
            )
    return names


def check_stored(config: DictConfig, *, source: Path, trusted: Sequence[str]) -> None:
    """Refuse a stored configuration that chooses something else than its place allows.

    Args:
        config: as it was read, with the names of today.
        source: its file, for messages.
        trusted: packages whose classes it may name besides, see `trusted_packages`.

    Raises:
        ConfigurationError: with all that is refused, and how to trust it.
    """
    try:
        plain = OmegaConf.to_container(config, resolve=False)
        problems = list(dict.fromkeys(_raw_problems(plain, trusted)))
        if not problems:  # nothing resolves before every resolver is a known one
            problems = list(dict.fromkeys(_moved_nodes(config, trusted)))
    except RecursionError:
        problems = ["nested too deep"]
    if problems:
        more = len(problems) - NUM_SHOWN
        shown = [*problems[:NUM_SHOWN], *([f"and {more} more"] if more > 0 else [])]
        raise ConfigurationError(
            f"{source} chooses code, and a stored configuration may choose only what this version "
            "ships:\n" + "\n".join(f"- {line}" for line in shown)
        )


def target_violation(target: object, path: str, *, trusted: Sequence[str]) -> str | None:
    """Return why a stored `_target_` is refused; None: it is allowed.

    Only modules of what `conf/` names, and of trusted packages, are imported to find out. A name
    in a trusted package may lead elsewhere (`mine.os.system`), so the object's own name counts.
    """
    key = f"{path}._target_={target}"
    if not isinstance(target, str) or _NAME.fullmatch(target) is None:
        return f"{key}: no dotted name of a class or function (text, as in conf/)"
    place = place_of(path)
    shipped = shipped_targets()[place] if place is not None else frozenset()
    if target in shipped or _is_own_name(target, shipped):
        return None
    if not _is_within(target, trusted):
        where = "nothing is built there" if place is None else f"no option of {place} names it"
        return f"{key}: {where}. {how_to_trust(target)}"
    try:
        own = own_name(get_object(target))
    except Exception as error:  # noqa: BLE001 (whatever importing a module raises)
        return f"{key}: cannot be imported ({' '.join(str(error).split())[:200]})"
    if _is_within(own, trusted):
        return None
    return f"{key}: this name leads to {own}, which is in no trusted package. {how_to_trust(own)}"


def own_name(found: Any) -> str:
    """Return module and qualified name of an object as it states them itself."""
    module = getattr(found, "__module__", None) or type(found).__module__
    return f"{module}.{getattr(found, '__qualname__', type(found).__qualname__)}"


def packages_of(config: DictConfig) -> tuple[str, ...]:
    """Return what a later call has to trust to read a configuration of the present one back."""
    plain = OmegaConf.to_container(config, resolve=False)
    names = [
        _package(target)
        for path, target in named_targets(plain)
        if target_violation(target, path, trusted=()) is not None and _NAME.fullmatch(target)
    ]
    if OmegaConf.select(config, "model.trust_remote_code") is True:
        names.append(REMOTE_CODE)
    return tuple(dict.fromkeys([*trusted_packages(config), *names]))


def _raw_problems(node: Any, trusted: Sequence[str], path: str = "") -> Iterator[str]:
    """Yield what is refused of plain data, interpolations as they are written."""
    if isinstance(node, dict):
        if "_target_" in node:
            problem = target_violation(node["_target_"], path, trusted=trusted)
            if problem is not None:
                yield problem
        for key, value in node.items():
            where = f"{path}.{key}" if path else str(key)
            if key == "trust_remote_code" and value is not False and value is not None:
                yield from _remote_code(where, value, trusted)
            yield from _raw_problems(value, trusted, where)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _raw_problems(value, trusted, f"{path}.{index}")
    elif isinstance(node, str) and "${" in node:
        yield from _resolver_problems(node, path)


def _remote_code(path: str, value: object, trusted: Sequence[str]) -> Iterator[str]:
    if REMOTE_CODE not in trusted:
        yield (
            f"{path}={value}: it runs the Python in the model's folder. Fix: "
            f"trusted_packages=[{REMOTE_CODE}], if you have read that Python"
        )


def _resolver_problems(text: str, path: str) -> Iterator[str]:
    """Yield resolvers that are not allowed, and nodes that are written inside an interpolation."""
    try:
        tree = parse(text)
    except OmegaConfBaseException as error:
        yield f"{path}={text[:100]}: no interpolation ({str(error).splitlines()[0]})"
        return
    for context in _contexts(tree):
        if isinstance(context, OmegaConfGrammarParser.InterpolationResolverContext):
            name = context.resolverName().getText()
            if name not in ALLOWED_RESOLVERS:
                yield (
                    f"{path}={text[:100]}: the resolver {name} (allowed: "
                    f"{', '.join(sorted(ALLOWED_RESOLVERS))}). Fix: write its value there"
                )
        elif isinstance(context, OmegaConfGrammarParser.DictContainerContext):
            yield f"{path}={text[:100]}: a mapping in an interpolation. Fix: write its value there"


def _contexts(tree: Any) -> Iterator[Any]:
    """Yield a tree of OmegaConf's grammar and all trees in it."""
    yield tree
    for index in range(tree.getChildCount()):
        yield from _contexts(tree.getChild(index))


def _moved_nodes(config: DictConfig, trusted: Sequence[str]) -> Iterator[str]:
    """Yield nodes that an interpolation brings to a place where they are not allowed."""
    seen: dict[tuple[int, str | None], Any] = {}  # with the nodes: no other gets the id of one

    def problems(node: Any, path: str, depth: int) -> Iterator[str]:
        if not isinstance(node, DictConfig | ListConfig):
            return
        mark = (id(node), place_of(path))
        if mark in seen:
            return
        seen[mark] = node
        if depth > MAX_DEPTH:
            yield f"{path[:100]}: nested deeper than {MAX_DEPTH} levels. Fix: restore the file"
            return
        if isinstance(node, DictConfig) and "_target_" in node:
            problem = target_violation(_value(node, "_target_"), path, trusted=trusted)
            if problem is not None:
                yield problem
        keys: Any = node.keys() if isinstance(node, DictConfig) else range(len(node))
        for key in keys:
            where = f"{path}.{key}" if path else str(key)
            yield from problems(_value(node, key), where, depth + 1)

    yield from problems(config, "", 0)


def _value(node: DictConfig | ListConfig, key: Any) -> Any:
    """Return a resolved value; None where it cannot be resolved here."""
    try:
        return None if OmegaConf.is_missing(node, key) else node[key]
    except Exception:  # noqa: BLE001 (a resolver may raise anything)
        return None


def _is_own_name(target: str, shipped: frozenset[str]) -> bool:
    """Return whether `target` is where a shipped object is defined, not where `conf/` finds it."""
    name = target.rpartition(".")[2]
    for one in shipped:
        if one.rpartition(".")[2] == name:
            try:
                if own_name(get_object(one)) == target:
                    return True
            except Exception:  # noqa: BLE001 (its library may be missing)
                continue
    return False


def _is_within(name: str, packages: Sequence[str]) -> bool:
    return any(name.startswith(f"{package}.") for package in packages)


def how_to_trust(target: object) -> str:
    """Return the remedy for a target that is refused; of what is no name in general terms."""
    name = str(target)
    package = _package(name) if _NAME.fullmatch(name) else "NAME"
    return (
        f"Fix: trusted_packages=[{package}], only if you know this package and who wrote the file"
    )


def _package(target: str) -> str:
    """Return the package to trust for a target; of libraries that conf/ names only a module."""
    root, _, _ = target.partition(".")
    libraries = {name.partition(".")[0] for names in shipped_targets().values() for name in names}
    return (target.rpartition(".")[0] if root in libraries else root) or root
