"""Begin a run directory, or continue in one that the same command has left unfinished."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig, OmegaConf

from quarry.errors import UserError
from quarry.runtime.ownership import begun_run, owned
from quarry.runtime.run_directory import RunDirectory
from quarry.runtime.secret_values import remember_secrets, scrub

logger = logging.getLogger(__name__)

TASK = "task._target_"
_MISSING = object()


@contextmanager
def begun_or_continued_run(config: DictConfig, *, result: str) -> Iterator[RunDirectory]:
    """Own a new run directory, or one with the same configuration and no result.

    Args:
        config: `paths.run_dir` is the directory. What the model's contract settles is settled in
            it, as in the configuration that a run stores.
        result: name of the file that a finished run has.

    Raises:
        UserError: another process owns the directory, or it has another or a finished run, or
            one that has begun with other settings, which are named.
    """
    run = RunDirectory.shared(config.paths.run_dir)
    if not run.config.exists():
        with begun_run(run.path) as begun:
            yield begun
        return
    with owned(run.path):
        others = _other_settings(config, run)
        if (run.path / result).exists() or others is None:
            RunDirectory.create(run.path)  # refuses it
        elif others:
            more = f" and {len(others) - 5} more" if len(others) > 5 else ""
            raise UserError(
                f"hydra.run.dir={run.path}: holds the beginning of a run with other settings "
                f"({', '.join(others[:5])}{more}). Fix: another hydra.run.dir, or the command of "
                "before"
            )
        logger.info("%s: an unfinished run of this command is continued", run.path)
        yield run


def _other_settings(config: DictConfig, run: RunDirectory) -> list[str] | None:
    """Return the keys whose values a run directory does not have; None: it has no such run.

    Keys of a study count not: it continues its jobs with `study.resume=true`.
    """
    plain: Any = OmegaConf.to_container(config, resolve=False)
    remember_secrets(plain)
    resolved: Any = scrub(OmegaConf.to_container(config, resolve=True))
    try:
        stored: Any = OmegaConf.to_container(OmegaConf.load(run.resolved_config))
        own, wanted = _leaves(stored), _leaves(resolved)
    except Exception:  # noqa: BLE001 (whatever a damaged file raises)
        return None
    if own.get(TASK) != wanted.get(TASK):
        return None
    keys = sorted(own.keys() | wanted.keys())
    return [
        key
        for key in keys
        if key.partition(".")[0] != "study" and own.get(key, _MISSING) != wanted.get(key, _MISSING)
    ]


def _leaves(node: dict[Any, Any], path: str = "") -> dict[str, Any]:
    """Return the values of a configuration by their dotted keys."""
    found: dict[str, Any] = {}
    for name, value in node.items():
        is_inner = isinstance(value, dict) and value
        found |= _leaves(value, f"{path}{name}.") if is_inner else {f"{path}{name}": value}
    return found
