"""Register OmegaConf resolvers for values that depend on this process and machine."""

from __future__ import annotations

import netrc
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from omegaconf.resolvers import oc

from quarry.runtime.devices import has_gpu, visible_gpus
from quarry.runtime.secret_values import remember_variable
from quarry.runtime.shipped_files import studies_dir

RESOLVERS = (
    "run_dir", "sweeps_dir", "is_terminal", "wandb_offline", "on_gpu", "num_gpu_jobs", "hub_id",
    "dry_run_prefix",
)  # fmt: skip
"""The functions below that are resolvers."""


def register_resolvers() -> None:
    """Register `RESOLVERS` as `${name:...}`, and `hidden_env` as OmegaConf's `oc.env`."""
    for name in RESOLVERS:
        OmegaConf.register_new_resolver(name, globals()[name], replace=True)
    OmegaConf.register_new_resolver("oc.env", hidden_env, replace=True)


def hidden_env(key: str, *default: Any) -> str | None:
    """Return the value of an environment variable, and hide it in what this process writes."""
    remember_variable(key)
    return oc.env(key, *default)


def run_dir() -> str:
    """Return the directory of this run; outside a run (`--cfg job`, tests) a placeholder."""
    if HydraConfig.initialized():
        runtime = HydraConfig.get().runtime
        if not OmegaConf.is_missing(runtime, "output_dir"):
            return str(runtime.output_dir)
    return "RUN_DIR"


def sweeps_dir() -> str:
    """Return the folder of studies."""
    return str(studies_dir())


def dry_run_prefix(debug: str | None, fast_dev_run: bool | int) -> str:
    """Return what the name of a dry run's directory begins with: "debug_"; else nothing."""
    return "debug_" if debug is not None or fast_dev_run else ""


def is_terminal() -> bool:
    """Return whether stderr is a terminal, where progress bars make sense."""
    return sys.stderr.isatty()


def on_gpu(with_gpu: str, without: str) -> str:
    """Return `with_gpu` if there is a CUDA device, else `without`."""
    return with_gpu if has_gpu() else without


def num_gpu_jobs(num_devices: int | str) -> int:
    """Return how many jobs with that many devices each fit on this machine's GPUs at once."""
    num = int(num_devices) if str(num_devices).isdigit() else len(visible_gpus())
    return max(1, len(visible_gpus()) // max(1, num))


def hub_id(size: str, hub_ids: Mapping[str, str], has_replica: bool = True) -> str | None:
    """Return the hub id of a size of a model family; None for its replica, "tiny"."""
    is_replica = has_replica and size == "tiny"
    if not is_replica and size not in hub_ids:
        sizes = ", ".join(hub_ids) + (" and tiny (a small random replica)" if has_replica else "")
        raise ValueError(
            f"model.size={size} was never published; there are {sizes}. "
            f"Fix: model.size={next(iter(hub_ids))}"
        )
    return hub_ids.get(size)


def wandb_offline() -> bool:
    """Return False only if W&B can log in without asking, by a key in the environment or ~/.netrc.

    As in W&B itself, WANDB_BASE_URL names another server and NETRC another file.
    """
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"] != "online"
    if os.environ.get("WANDB_API_KEY"):
        return False
    server = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").netloc
    file = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        return netrc.netrc(str(file)).authenticators(server) is None
    except (OSError, netrc.NetrcParseError):
        return True
