"""The groups of `conf/` and `sweeps/`, and the options of each."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import yaml

from quarry.config.resolvers import sweeps_dir
from quarry.runtime.shipped_files import conf_dir


@cache
def options_of_groups() -> Mapping[str, tuple[str, ...]]:
    """Return group -> its options, in order; Hydra's own groups are left out."""
    found: dict[str, list[str]] = {}
    for root in (conf_dir(), Path(sweeps_dir())):
        for path in sorted(root.rglob("*.yaml")):
            group = path.parent.relative_to(root).as_posix()
            if group != "." and not group.startswith("hydra"):
                found.setdefault(group, []).append(path.stem)
    return {group: tuple(options) for group, options in found.items()}


def suite_with(set_name: str) -> str | None:
    """Return the option of `benchmark` that has a set of that name; None: there is none."""
    for option in sorted(options_of_groups().get("benchmark", ()), key=len):
        text = (conf_dir() / "benchmark" / f"{option}.yaml").read_text(encoding="utf-8")
        if set_name in (yaml.safe_load(text).get("members") or ()):
            return option
    return None
