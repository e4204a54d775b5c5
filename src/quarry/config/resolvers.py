"""The few values that YAML cannot state: what this process and this machine are like."""

from __future__ import annotations

import netrc
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf


def register_resolvers() -> None:
    """Registers `${run_dir:}`, `${run_name:PATH}`, `${is_terminal:}` and `${wandb_offline:}`."""
    for resolver in (run_dir, run_name, is_terminal, wandb_offline):
        OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)


def run_dir() -> str:
    """The directory of this run; outside a run (`--cfg job`, tests) a placeholder."""
    if HydraConfig.initialized():
        runtime = HydraConfig.get().runtime
        if not OmegaConf.is_missing(runtime, "output_dir"):
            return str(runtime.output_dir)
    return "RUN_DIR"


def run_name(path: str) -> str:
    """The last part of a run directory's path."""
    return Path(path).name


def is_terminal() -> bool:
    """Whether a person is watching; progress bars are for them."""
    return sys.stderr.isatty()


def wandb_offline() -> bool:
    """True unless W&B can log in without asking: a key in the environment or in ~/.netrc.

    Looks where W&B itself does: WANDB_BASE_URL names another server, NETRC another file.
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
