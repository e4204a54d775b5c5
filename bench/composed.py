"""Build model and tokenizer as `eval.py` does, from options and overrides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from quarry.assembly.model_parts import ModelParts, build_model_parts, settle_contract
from quarry.config.schema import register_schemas
from quarry.config.validation import validate
from quarry.runtime.threads import hand_over_quickly

CONF = Path(__file__).resolve().parents[1] / "conf"


def composed_parts(overrides: Sequence[str]) -> tuple[DictConfig, ModelParts]:
    """Return the composed configuration, for texts without a prompt, and its model parts."""
    config = composed_config(overrides)
    return config, build_model_parts(config)


def composed_config(overrides: Sequence[str]) -> DictConfig:
    """Return the composed configuration, its contract settled."""
    register_schemas()
    hand_over_quickly()
    given = ["prompt=none", "logger=none", "paths.run_dir=none", *overrides]
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        config = compose(config_name="eval", overrides=given)
    validate(config, primary="eval")
    settle_contract(config)
    return config
