"""`quarry.load` of somebody else's run directory calls nothing that its YAML names."""

from __future__ import annotations

import shutil
from pathlib import Path

import joblib
import pytest
import yaml

from helpers.earlier_run import copied
from helpers.pickles import Bomb
from quarry.api import load
from quarry.errors import UserError


def test_loading_an_unfinished_run_calls_nothing_of_its_own(tmp_path: Path) -> None:
    run, flag = copied(tmp_path / "asset"), tmp_path / "flag"
    shutil.rmtree(run / "model")
    joblib.dump(Bomb(flag), tmp_path / "x.pkl")
    content = yaml.safe_load((run / "config.yaml").read_text())
    content["model"] = {"_target_": "joblib.load", "filename": str(tmp_path / "x.pkl")}
    (run / "config.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=r"trusted_packages=\[joblib\]"):
        load(run)
    assert not flag.exists()
