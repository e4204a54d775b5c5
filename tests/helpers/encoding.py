"""Corpora for a model that encodes them in a second, and calls of task=encode on them."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path

from hydra import compose
from hydra.utils import instantiate
from omegaconf import DictConfig

from helpers.models import tiny_folder
from helpers.stores import texts

SETTINGS = ("model.normalize=true", "evaluation.max_tokens_per_batch=200")


def write_corpus(path: Path, num_texts: int, *, seed: int = 0) -> Path:
    """JSON lines of different texts; every seventh text is there twice, far apart."""
    different = texts(num_texts, seed=seed)
    rows = different + different[::7]
    random.Random(seed).shuffle(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(json.dumps({"_id": f"d{i}", "text": text}) + "\n" for i, text in enumerate(rows))
    )
    return path


def configured(folder: Path, *overrides: str) -> DictConfig:
    """The configuration of a call, with its caches in `folder`. Needs Hydra to be initialized."""
    model = folder / "tiny"
    if not model.exists():
        tiny_folder(model)
    own = (
        "task=encode", f"model.path={model}", f"paths.cache_dir={folder / 'cache'}",
        "paths.run_dir=RUN_DIR", *SETTINGS,
    )  # fmt: skip
    return compose(config_name="eval", overrides=[*own, *overrides])


def encode(folder: Path, *overrides: str) -> Mapping[str, float]:
    """What the task returns."""
    config = configured(folder, *overrides)
    found: Mapping[str, float] = instantiate(config.task)(config)
    return found
