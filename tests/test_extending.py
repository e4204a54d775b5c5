"""docs/extending.md, executed: its files go into a copy of the project, which then trains."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

from helpers.commands import ROOT, SMALL
from helpers.preloaded import PreloadedPython, Script

FILE = re.compile(r"^`([\w/.]+)`\n\n```(?:python|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^```sh\npython (train\.py .*?)\n```$", re.MULTILINE)


def test_the_walk_through_works_as_written(
    preloaded_python: PreloadedPython, tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    files = dict(FILE.findall(page))
    assert len(files) == 4
    for name in ("src", "conf", "train.py"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    for name, content in files.items():
        assert not (tmp_path / name).exists(), f"{name} is no addition"
        (tmp_path / name).write_text(content, encoding="utf-8")
    (command,) = COMMAND.findall(page)
    script, *overrides = command.split()
    run = Script(
        arguments=[
            str(tmp_path / script), *overrides, *SMALL, "trainer.max_steps=2", "logger=csv",
            "evaluation.every_n_steps=0", "hydra.run.dir=run",
        ],
        environment=os.environ
        | {"PYTHONPATH": str(tmp_path / "src"), "QUARRY_CACHE": str(tmp_path)},
        folder=str(tmp_path),
        out=str(tmp_path / "out"),
        err=str(tmp_path / "err"),
    )  # fmt: skip
    assert preloaded_python.run(run, timeout_s=120) == [0], (tmp_path / "err").read_text()
    contract = json.loads((tmp_path / "run" / "model" / "quarry_contract.json").read_text())
    assert contract["settings"]["model.pooling"] == {
        "_target_": "quarry.models.pooling.first_and_last.FirstAndLast",
        "weight_of_first": 0.5,
    }
    assert "train/num_violations" in (tmp_path / "run" / "csv" / "metrics.csv").read_text()
