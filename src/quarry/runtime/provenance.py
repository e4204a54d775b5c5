"""Record where a result comes from: command, code, versions, hardware."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

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

_SECRET = re.compile(
    r"(^|[._-])((api|access|secret|private)[_-]?key|secret|password|passwd|credentials?|"
    r"((access|auth|hf|hub|api)_?)?token)$",
    re.IGNORECASE,
)
_SPECIAL_TOKEN = re.compile(r"(^|[._-])(begin|end|bos|eos|pad|unk)_token$")
"""Keys of special tokens, such as prompt.end_token. They are no secrets: resuming reads them."""

_INLINE = re.compile(r"([\w.-]+)(\s*:\s*)([^\s,}\]]+)")
"""A key and its value inside an argument such as `settings={api_key:abc}`."""


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


def is_secret(key: str) -> bool:
    """Return whether a value under this key must be hidden ("hf_token", "api_key", ...)."""
    return _SECRET.search(key) is not None and _SPECIAL_TOKEN.search(key) is None


def scrub_argument(argument: str) -> str:
    """Return `key=value` with the value hidden if the key, or a key inside, names a secret."""
    key, separator, _ = argument.partition("=")
    if separator and is_secret(key):
        return f"{key}=***"
    return _INLINE.sub(
        lambda match: f"{match[1]}{match[2]}***" if is_secret(match[1]) else match[0], argument
    )


def scrub(value: Any) -> Any:
    """Return a copy of nested plain data with secrets hidden."""
    if isinstance(value, dict):
        return {k: "***" if is_secret(str(k)) and v else scrub(v) for k, v in value.items()}
    if isinstance(value, list):
        return [scrub(item) for item in value]
    return value


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
