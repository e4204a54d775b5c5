"""List which classes and functions the options in `conf/` name, by the place where they stand."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import yaml

from quarry.runtime.shipped_files import conf_dir

PLACES = (
    "task", "model", "model.pooling", "model.adapter", "prompt", "data", "loss", "optimizer",
    "scheduler", "trainer", "trainer.strategy", "callbacks", "logger", "benchmark", "convention",
    "retriever", "baseline",
)  # fmt: skip
"""Parts of a configuration that build something; each has a list of its own."""

OF_OTHERS: Mapping[str, tuple[str, ...]] = {"baseline": ("retriever",), "task": ("convention",)}
"""Place -> places whose options its own files take in."""

OF_EARLIER_VERSIONS: Mapping[str, tuple[str, ...]] = {
    "logger": ("pytorch_lightning.loggers.WandbLogger", "pytorch_lightning.loggers.MLFlowLogger"),
}
"""What earlier versions shipped at a place, where it is still built under that name."""

_PACKAGE = re.compile(r"^# @package (\S+)$", re.MULTILINE)
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def place_of(path: str) -> str | None:
    """Return the place that a dotted path belongs to; None: nothing is built there."""
    inside = [place for place in PLACES if path == place or path.startswith(f"{place}.")]
    return max(inside, key=len, default=None)


@cache
def shipped_targets() -> Mapping[str, frozenset[str]]:
    """Return place -> every `_target_` of `conf/` there, and those of `OF_EARLIER_VERSIONS`.

    Options of `--config-dir` do not count: they belong to one call.
    """
    own: dict[str, set[str]] = {place: set() for place in PLACES}
    root = conf_dir()
    for file in root.rglob("*.yaml"):
        text = file.read_text(encoding="utf-8")
        package = _PACKAGE.search(text)
        start = ".".join(file.parent.relative_to(root).parts) if package is None else package[1]
        start = "" if start == "_global_" else start
        for path, target in named_targets(yaml.load(text, Loader=_LOADER), start):
            place = place_of(path)
            if place is not None:
                own[place].add(target)
    return MappingProxyType(
        {
            place: frozenset(own[place]).union(
                *(own[other] for other in OF_OTHERS.get(place, ())),
                OF_EARLIER_VERSIONS.get(place, ()),
            )
            for place in PLACES
        }
    )


def named_targets(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted path of the node, `_target_`) of plain data, at any depth."""
    if isinstance(node, Mapping):
        if isinstance(node.get("_target_"), str):
            yield path, node["_target_"]
        for key, value in node.items():
            yield from named_targets(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from named_targets(value, f"{path}.{index}")
