"""Check that a study or experiment is run by the entry point that its header names.

The other one would do something else with it, such as train for a study of evaluations.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException

from quarry.errors import ConfigurationError
from quarry.runtime.own_command import own_command
from quarry.runtime.shipped_files import conf_dir, studies_dir

PRIMARIES = ("train", "eval")
"""The entry points train.py and eval.py, by their primary config: conf/train.yaml, ..."""

GROUPS = ("study", "experiment")
"""Configuration groups that belong to one entry point."""

_HEADER = re.compile(r"^# primary: (.+)$", re.MULTILINE)


def primaries_of(text: str) -> tuple[str, ...]:
    """Return the entry points of an option's line `# primary: train`; all where it has none."""
    found = _HEADER.search(text)
    return PRIMARIES if found is None else tuple(re.split(r",\s*", found[1].strip()))


def check_entry_point(arguments: Sequence[str], *, primary: str) -> None:
    """Refuse a study or experiment of the other entry point, before Hydra composes anything.

    Args:
        primary: train or eval.

    Raises:
        ConfigurationError: a study or an experiment is for the other one, or there are several
            studies.
    """
    for argument in arguments:
        if not argument.startswith(tuple(f"{group}=" for group in GROUPS)):
            continue
        try:
            override = OverridesParser.create().parse_override(argument)
        except HydraException:
            continue  # Hydra's own message is better
        if override.key_or_group == "study" and override.is_sweep_override():
            raise ConfigurationError(
                f"{argument}: a command runs one study, which has a folder of its own. Fix: start "
                "them one by one."
            )
        for option in _options(override):
            _check(override.key_or_group, option, primary=primary)


def _options(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [str(override.value())]
    if not override.is_discrete_sweep() or isinstance(override.value(), Glob):
        return []
    return [str(value) for value in override.sweep_string_iterator()]


def _check(group: str, option: str, *, primary: str) -> None:
    for folder in (studies_dir(), conf_dir()):
        file = folder / group / f"{option}.yaml"
        if not file.is_file():
            continue
        names = primaries_of(file.read_text(encoding="utf-8"))
        if primary not in names:
            raise ConfigurationError(
                f"{group}={option} is for {names[0]}, not {primary}. Fix: "
                f"{own_command(names[0])} {group}={option}"
            )
