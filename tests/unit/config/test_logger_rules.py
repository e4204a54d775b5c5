"""Tasks that validate nothing else check their loggers."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from quarry.config import logger_rules
from quarry.config.logger_rules import check_loggers
from quarry.errors import UserError

CSV = "pytorch_lightning.loggers.CSVLogger"
TENSORBOARD = "pytorch_lightning.loggers.TensorBoardLogger"


@pytest.mark.parametrize(
    ("logger", "message"),
    [
        ({"x": 5}, r"logger\.x=5 names no class"),
        ({"x": {"offline": True}}, "names no class"),
        ({"csv": {"_target_": CSV, "save_dir": "x", "nmae": "y"}}, r"logger\.csv\.nmae: "),
        ({"tb": {"_target_": TENSORBOARD}}, r"logger\.tb.* 'quarry-retrieval\[loggers\]'"),
        (None, "logger=null is no group"),
    ],
)
def test_a_logger_that_cannot_start_is_refused(
    logger: object, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logger_rules, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=message):
        check_loggers(OmegaConf.create({"logger": logger}))


def test_loggers_that_can_start_pass() -> None:
    check_loggers(OmegaConf.create({"logger": {}}))
    check_loggers(
        OmegaConf.create({"logger": {"csv": {"_target_": CSV, "save_dir": "x"}, "y": None}})
    )
