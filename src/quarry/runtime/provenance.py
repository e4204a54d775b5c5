"""Record where a result comes from: command, code, versions, hardware."""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from quarry.runtime.secret_values import scrub_argument

PACKAGES = (
    "quarry-retrieval",
    "torch",
    "transformers",
    "tokenizers",
    "pytorch-lightning",
    "hydra-core",
    "peft",
    "sentence-transformers",
    "deepspeed",
    "bm25s",
    "pytrec-eval-terrier",
    "datasets",
    "wandb",
    "numpy",
)


def collect_provenance() -> dict[str, Any]:
    """Return plain data about this process, without environment variables and secrets."""
    return {
        "command": [
            scrub_argument(argument) for argument in [Path(sys.argv[0]).name, *sys.argv[1:]]
        ],
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "git": _git(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "hardware": {
            "platform": platform.platform(),
            "processor": platform.machine(),
            "num_threads": torch.get_num_threads(),
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    """Return the commit of the checkout with this code, and whether it has changes."""
    file = Path(__file__).resolve()

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(file.parent), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return result.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", file.name)  # else it is another project's checkout
        return {"commit": git("rev-parse", "HEAD"), "is_dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None
