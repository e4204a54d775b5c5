from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from quarry.assembly.early_checks import check_trainer, check_training_parts
from quarry.errors import UserError

PARTS: Mapping[str, Any] = {
    "loss": {"_target_": "quarry.losses.info_nce.InfoNCE", "temperature": 0.05},
    "optimizer": {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 0.1},
    "scheduler": {
        "_target_": "quarry.training.optim.linear_schedule",
        "_partial_": True,
        "num_warmup_steps": 1,
    },
}


def config_of(**changed: Mapping[str, Any]) -> DictConfig:
    return OmegaConf.create({key: {**node, **changed.get(key, {})} for key, node in PARTS.items()})


def test_what_works_is_let_through() -> None:
    check_training_parts(config_of())


@pytest.mark.parametrize(
    ("key", "values", "reason"),
    [
        ("loss", {"temperature": 0}, "loss.temperature=0"),
        ("optimizer", {"betas": [0.9]}, "optimizer: it cannot be built: "),
        ("optimizer", {"lr": "1"}, "optimizer: it cannot be built: "),
        ("scheduler", {"num_warmup_steps": -1}, "scheduler.num_warmup_steps=-1"),
        ("scheduler", {"num_warmup_steps": "x"}, "scheduler: it cannot be built: "),
    ],
)
def test_what_a_class_refuses_is_told_with_its_key(
    key: str, values: Mapping[str, Any], reason: str
) -> None:
    with pytest.raises(UserError, match=reason):
        check_training_parts(config_of(**{key: values}))


def test_a_trainer_is_built_on_trial(tmp_path: Path) -> None:
    node = {"_target_": "pytorch_lightning.Trainer", "accelerator": "cpu"}
    config = OmegaConf.create({"paths": {"run_dir": str(tmp_path / "run")}, "trainer": node})
    check_trainer(config)
    assert not (tmp_path / "run").exists()
    for wrong in ({"max_time": "abc"}, {"gradient_clip_algorithm": "sum"}):
        other = OmegaConf.merge(config, {"trainer": wrong})
        with pytest.raises(UserError, match="trainer: it cannot be built: "):
            check_trainer(other)
