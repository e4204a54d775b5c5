"""Cache the logits of pairs on disk, a block of pairs a file, so that a killed run continues."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quarry.runtime.cache_use import CacheUse
from quarry.runtime.files import replacing, write_json
from quarry.runtime.leftovers import remove_unfinished

logger = logging.getLogger(__name__)

FOLDER = "pair_scores"
ABOUT = "about.json"
"""File in the folder of a reranker that says which one it is, for people and `task=cache`."""

NUM_DIGITS = 24


class ScoreCache:
    """Cached logits of one reranker.

    Args:
        cache_dir: folder of all caches.
        identity: everything besides the pairs on which a logit depends, as plain data.
        model: folder or hub id of the reranker.
    """

    def __init__(
        self, cache_dir: Path | str, *, identity: Mapping[str, object], model: str
    ) -> None:
        self._key = json.dumps(identity, sort_keys=True)
        self.folder = Path(cache_dir).expanduser() / FOLDER / _digest(self._key.encode())
        self._has_warned = False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_unfinished(self.folder)
            if not (self.folder / ABOUT).exists():
                write_json(self.folder / ABOUT, {"model": model})
        except OSError as error:
            self._warn(error)
        self._use = CacheUse(self.folder)

    def path_of(self, hashes: NDArray[np.bytes_]) -> Path:
        """Return the file of a block.

        Args:
            hashes: [num_pairs] of its pairs, in order.
        """
        return self.folder / f"{_digest(self._key.encode(), hashes.tobytes())}.npy"

    def read(self, hashes: NDArray[np.bytes_]) -> NDArray[np.float32] | None:
        """Return the block, [2, num_pairs]; None: it is not there, or damaged."""
        path = self.path_of(hashes)
        try:
            block: NDArray[np.float32] = np.load(path, allow_pickle=False)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError) as error:
            logger.warning("%s is damaged (%s); its pairs are scored again", path, error)
            return None
        if block.shape != (2, len(hashes)) or block.dtype != np.float32:
            logger.warning("%s is damaged (%s); its pairs are scored again", path, block.shape)
            return None
        return block

    def write(self, hashes: NDArray[np.bytes_], block: NDArray[np.float32]) -> None:
        """Store a block: logits, and whether each pair was cut. A full disk is a warning."""
        try:
            with replacing(self.path_of(hashes)) as partial, partial.open("wb") as file:
                np.save(file, block, allow_pickle=False)
        except OSError as error:
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "%s cannot be written to (%s): scores of pairs are used, and not cached. Fix: make "
                "room, or paths.cache_dir=DIR",
                self.folder,
                error.strerror,
            )


def model_of_scores(folder: Path) -> str | None:
    """Return the reranker that made the scores in a folder, if it is recorded."""
    with contextlib.suppress(OSError, ValueError):
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if isinstance(about, dict) and isinstance(about.get("model"), str):
            return str(about["model"])
    return None


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}:".encode())
        digest.update(part)
    return digest.hexdigest()[:NUM_DIGITS]
