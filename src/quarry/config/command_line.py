"""Put a command line into the form that Hydra reads: flags last, Lightning's arguments added."""

from __future__ import annotations

import re
from collections.abc import Sequence

import yaml

from quarry.config.signature_rules import signature_of
from quarry.runtime.shipped_files import conf_dir

FLAGS_WITH_VALUE = (
    "--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn",
    "--config-dir", "-cd", "--experimental-rerun",
)  # fmt: skip

INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")

FLAGS_WITH_CHOICE = {"--info": INFO, "-i": INFO}
"""Flag whose value may be left out -> its values."""

TRAINER_ARGUMENT = re.compile(r"\+?trainer\.(?P<name>\w+)=")


def prepared_arguments(arguments: Sequence[str]) -> list[str]:
    """Return a command line in which flags stand anywhere, as Hydra reads it.

    Arguments of Lightning's Trainer that `conf/trainer` does not have need no `+`.
    """
    return [_trainer_argument(one) for one in _flags_last(arguments)]


def _flags_last(arguments: Sequence[str]) -> list[str]:
    """Move flags behind the overrides: argparse takes no override after a flag that follows one."""
    overrides: list[str] = []
    flags: list[str] = []
    flag = ""
    for one in arguments:
        is_value = flag in FLAGS_WITH_VALUE or one in FLAGS_WITH_CHOICE.get(flag, ())
        is_flag = not is_value and one.startswith("-")
        (flags if is_value or is_flag else overrides).append(one)
        flag = one if is_flag else ""
    return [*overrides, *flags]


def _trainer_argument(argument: str) -> str:
    match = TRAINER_ARGUMENT.match(argument)
    if match is None:
        return argument
    text = (conf_dir() / "trainer" / "default.yaml").read_text(encoding="utf-8")
    if match["name"] in yaml.safe_load(text) or not is_trainer_argument(match["name"]):
        return argument
    return f"++{argument.lstrip('+')}"


def is_trainer_argument(name: str) -> bool:
    """Return whether Lightning's Trainer has an argument of that name."""
    return name in signature_of("pytorch_lightning.Trainer").parameters
