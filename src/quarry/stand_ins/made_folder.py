"""A model folder in the cache that is made once, whole or not at all."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

logger = logging.getLogger(__name__)


def made_once(target: Path, make: Callable[[Path], None]) -> Path:
    """`target`, where it has weights already; else what `make` writes into an empty folder.

    Two processes may try at once: the first to finish wins, and the other leaves nothing behind.
    """
    if (target / "model.safetensors").exists():
        return target
    logger.info("Making a small model in %s", target)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=target.name, dir=target.parent))
    try:
        make(scratch)
        scratch.replace(target)
    except OSError:
        # another process was first: a folder cannot be replaced by a folder
        if not (target / "model.safetensors").exists():
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target
