"""Check before loading that a model is available and fits; suggest commands that would run."""

from __future__ import annotations

import shlex

from hydra.core.hydra_config import HydraConfig

from quarry.config.sweep_overrides import as_typed, identity
from quarry.errors import UserError
from quarry.models.building import check_model
from quarry.models.fp8 import check_fp8
from quarry.models.memory import Spread
from quarry.models.model_spec import ModelSpec
from quarry.models.remedies import CannotLoadError
from quarry.runtime.own_command import own_command


def preflight(
    spec: ModelSpec,
    *,
    is_trained: bool,
    on_cpu: bool = False,
    spread: Spread | None = None,
) -> None:
    """Refuse a model that cannot be loaded here, and name commands that would run instead.

    Args:
        on_cpu: the model stays on the CPU, even if there is a GPU.
        spread: how ZeRO divides the model over ranks; None: each rank has the complete model.

    Raises:
        UserError: the hub cannot be reached, the memory is too small, or fp8 is not supported.
    """
    if spec.options.linear_precision == "fp8":
        check_fp8(on_cpu=on_cpu)
    try:
        check_model(spec, is_trained=is_trained, on_cpu=on_cpu, spread=spread)
    except CannotLoadError as error:
        commands = "".join(
            f"\n  {command_with(override)}   # {meaning}"
            for override, meaning in error.remedies.items()
        )
        raise UserError(
            f"{error}" + (f"\nWhat would run:{commands}" if commands else "")
        ) from error


def command_with(*overrides: str) -> str:
    """Return the command of this job, with its overrides of the same keys replaced."""
    if not HydraConfig.initialized():
        return " ".join(overrides)
    hydra = HydraConfig.get()
    keys = {override.split("=", 1)[0] for override in overrides}
    own = identity(as_typed(hydra.overrides.task))
    kept = [entry for entry in own if entry.split("=", 1)[0] not in keys]
    return f"{own_command(hydra.job.name)} {shlex.join([*kept, *overrides])}"
