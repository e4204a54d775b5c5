"""Compose a job's configuration outside the command line, as Hydra does for a command."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import Any, Literal

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from quarry.config.command_line import prepared_arguments
from quarry.config.entry_point import check_entry_point
from quarry.config.hidden_values import hide_values_of
from quarry.config.near_misses import notes_near_misses
from quarry.config.schema import register_schemas
from quarry.errors import UserError
from quarry.runtime.entry import error_text
from quarry.runtime.hiding import hides_secrets_in_errors
from quarry.runtime.override_text import quoted
from quarry.runtime.renamed_keys import refuse_renamed_keys
from quarry.runtime.secret_values import remember_arguments
from quarry.runtime.shipped_files import conf_dir

Primary = Literal["train", "eval"]


def overrides_of(settings: Mapping[str, Any]) -> list[str]:
    """Return keyword settings as overrides: `trainer__max_steps=4` is `trainer.max_steps=4`.

    Args:
        settings: key, with two underscores where it has a dot, -> text, number, bool, None, or a
            list or mapping of them.
    """
    return [f"{key.replace('__', '.')}={_value(value)}" for key, value in settings.items()]


@contextmanager
def composed_job(primary: Primary, overrides: Sequence[str]) -> Iterator[DictConfig]:
    """Yield the configuration that `python {primary}.py OVERRIDES` would run with.

    Inside, Hydra's own configuration is that of the job: what stands in `overrides` is explicit, as
    on a command line. Afterwards it is what it was.

    Args:
        overrides: as on the command line.

    Raises:
        UserError: an override is malformed, or names a key or an option that there is not.
    """
    remember_arguments(overrides)
    before = HydraConfig.instance().cfg
    try:
        with hides_secrets_in_errors():
            refuse_renamed_keys(overrides)
            check_entry_point(overrides, primary=primary)
            register_schemas()
            with (
                _outside_of_hydra(),
                initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3"),
            ):
                try:
                    with notes_near_misses(overrides, primary=primary):
                        config = _composed(primary, prepared_arguments(overrides))
                except (HydraException, OmegaConfBaseException) as error:
                    raise UserError(error_text(error)) from error
                own: Any = OmegaConf.masked_copy(config, "hydra")
                HydraConfig.instance().cfg = own
                with open_dict(config):
                    del config["hydra"]
                hide_values_of(config)
                yield config
    finally:
        HydraConfig.instance().cfg = before


@contextmanager
def _outside_of_hydra() -> Iterator[None]:
    """Let a configuration be composed inside a task that Hydra has started."""
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().hydra = None
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = outer


def _composed(primary: Primary, overrides: Sequence[str]) -> DictConfig:
    """Return the configuration with Hydra's own part, which has the overrides as explicit."""
    config = compose(primary, overrides=list(overrides), return_hydra_config=True)
    with open_dict(config):
        config.hydra.overrides.task = list(overrides)
        config.hydra.runtime.output_dir = str(Path(config.hydra.run.dir).absolute())
    return config


def _value(value: Any) -> str:
    """Return a value in Hydra's override grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_value(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(map(_value, value)) + "]"
    return str(value) if isinstance(value, Real) else quoted(str(value))
