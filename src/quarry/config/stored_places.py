"""Check where a stored configuration writes and logs to, before its run continues.

Others may have written it. Callbacks replace and remove the folders that they are given, and
loggers send the user's credentials to the servers that they are given.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from quarry.errors import ConfigurationError

GROUPS = ("callbacks", "logger", "trainer.profiler")
"""Nodes whose paths have to lie below the run directory."""

PATHS = frozenset(
    {"folder", "path", "dirpath", "checkpoint", "dir", "save_dir", "root_dir", "default_root_dir"}
)
"""Arguments that are paths, whatever they look like."""

READ_ONLY = frozenset({"corpus"})
"""Arguments of callbacks that are read as training data are; `data.path` may lie anywhere, too."""

_LOCAL = re.compile(r"(?:sqlite:///|file:(?://)?)(.*)")
"""Address of a local file."""

SHIPPED_SETTINGS = ("silent", "console")
"""The keys of `logger.wandb.settings` in `conf/`; others can name servers, proxies and programs."""

OWN_SERVER = "MLFLOW_TRACKING_URI"
"""Variable in which the present user names a server."""


def check_stored_places(
    config: DictConfig, *, run: Path, source: Path, has_own_loggers: bool
) -> None:
    """Refuse paths outside the run directory, and servers.

    Args:
        config: as it was stored, with the present `paths.run_dir`.
        source: its file, for messages.
        has_own_loggers: the loggers are those of the present command line, which may log anywhere.

    Raises:
        ConfigurationError: with all that is refused.
    """
    groups = [group for group in GROUPS if not (has_own_loggers and group == "logger")]
    problems: list[str] = []
    for group in groups:
        for key, value in _texts(OmegaConf.select(config, group), group, source):
            problem = _violation(key, value, run)
            problems += [] if problem is None else [problem]
    if problems:
        raise ConfigurationError(
            f"{source} names places outside of its run, and others may have written it:\n"
            + "\n".join(f"- {line}" for line in problems)
        )


def _texts(node: Any, path: str, source: Path) -> Iterator[tuple[str, object]]:
    """Yield key and value of everything below a node; of what does not resolve, the reason."""
    if not isinstance(node, DictConfig | ListConfig):
        return
    keys: Any = node.keys() if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        where = f"{path}.{key}"
        if OmegaConf.is_missing(node, key):
            continue
        try:
            value = node[key]
        except OmegaConfBaseException as error:
            reason = str(error).splitlines()[0]
            raise ConfigurationError(
                f"{source}: {where}: {reason}. Fix: write its value in that file"
            ) from error
        yield where, value
        yield from _texts(value, where, source)


def _violation(key: str, value: object, run: Path) -> str | None:
    names = key.split(".")
    if names[-1] == "tracking_uri" and value == os.environ.get(OWN_SERVER):
        return None
    local = _LOCAL.fullmatch(value) if isinstance(value, str) else None
    if names[0] == "logger" and local is None and (found := _server(names, value)):
        return (
            f"{key}={value}: {found}, which would receive your credentials (a stored logger may "
            "name files of its run). Fix: logger=NAME on the command line, with this key if you "
            "know the server, or logger=none"
        )
    if not isinstance(value, str) or names[-1] in READ_ONLY:
        return None
    is_path = names[-1] in PATHS or value.startswith(("/", "~")) or ".." in Path(value).parts
    if local is not None or is_path:
        return _outside(key, value if local is None else local[1], run)
    return None


def _server(names: list[str], value: object) -> str | None:
    """Return why an argument of a logger may name a server; None: it names none."""
    if "settings" in names[2:-1] and names[-1] not in SHIPPED_SETTINGS:
        return "a setting that can name a server"
    if names[-1] in ("base_url", "host") and value is not None:
        return "a server"
    if not isinstance(value, str) or value.startswith(("/", ".")):
        return None
    return "a server" if "://" in value or names[-1].endswith("_uri") else None


def _outside(key: str, value: str, run: Path) -> str | None:
    """Return what is wrong with a path that is not below the run directory."""
    path, folder = Path(value).expanduser().resolve(), run.resolve()
    may_be_it = not key.startswith("callbacks.")  # they replace what they are given
    if path.is_relative_to(folder) and (may_be_it or path != folder):
        return None
    return (
        f"{key}={value}: outside of the run directory ({run}), where a resumed run replaces and "
        "removes nothing. Fix: set it to a path below ${paths.run_dir} there, or start a new run"
    )
