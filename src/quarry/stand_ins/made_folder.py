"""Create a model folder in the cache once, atomically."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from quarry.runtime.cache_use import CacheUse, keep_used

logger = logging.getLogger(__name__)

PREFIXES = ("qwen-tiny", "qwen-replica", "qwen-vl-replica")
"""First parts of the folders' names; a hash of 16 digits follows."""

WEIGHTS = "model.safetensors"
"""The file with which a folder is complete."""


def made_once(target: Path, make: Callable[[Path], None]) -> Path:
    """Return `target`; if it has no weights yet, create it from what `make` writes into a folder.

    Several processes may try at once: the first to finish wins, and the others leave no files.
    """
    keep_used(target)  # before the check: nobody removes it in between
    if (target / WEIGHTS).exists():
        return target
    logger.info("Making a small model in %s", target)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=target.name, dir=target.parent))
    use = CacheUse(scratch)  # nobody removes it as the rest of a killed process
    try:
        make(scratch)
        scratch.replace(target)
    except OSError:
        # another process was first: replacing a folder that is not empty fails
        if not (target / WEIGHTS).exists():
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        del use
    keep_used(target)
    return target
