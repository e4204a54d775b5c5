"""docs/extending.md, executed: its files go into a copy of the project, which then trains."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.commands import ROOT, SMALL
from helpers.preloaded import PreloadedPython, Script
from quarry.assembly.saving import consolidate_if_unfinished
from quarry.losses.loss_inputs import LossInputs

FILE = re.compile(r"^`([\w/.]+)`\n\n```(?:python|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^```sh\npython (train\.py .*?)\n```$", re.MULTILINE)


def run_in(python: PreloadedPython, folder: Path, script: str, *overrides: str) -> None:
    """Run the copy's script in the copy; it has ended well, or the test fails."""
    run = Script(
        arguments=[str(folder / script), *overrides],
        environment=os.environ | {"PYTHONPATH": str(folder / "src"), "QUARRY_CACHE": str(folder)},
        folder=str(folder),
        out=str(folder / "out"),
        err=str(folder / "err"),
    )
    assert python.run(run, timeout_s=120) == [0], (folder / "err").read_text()


def test_the_walk_through_works_as_written(
    preloaded_python: PreloadedPython, tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    files = dict(FILE.findall(page))
    assert len(files) == 6
    for name in ("src", "conf", "train.py"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    for name, content in files.items():
        assert not (tmp_path / name).exists(), f"{name} is no addition"
        (tmp_path / name).write_text(content, encoding="utf-8")
    (command,) = COMMAND.findall(page)
    script, *overrides = command.split()
    settings = [
        "trainer.max_steps=3", "logger=csv", "trainer.log_every_n_steps=1",
        "evaluation.every_n_steps=0", "hydra.run.dir=run",
    ]  # fmt: skip
    run_in(preloaded_python, tmp_path, script, *overrides, *SMALL, *settings)
    contract = json.loads((tmp_path / "run" / "model" / "quarry_contract.json").read_text())
    assert contract["settings"]["model.pooling"] == {
        "_target_": "quarry.models.pooling.first_and_last.FirstAndLast",
        "weight_of_first": 0.5,
    }
    rows = list(csv.DictReader((tmp_path / "run" / "csv" / "metrics.csv").open()))
    assert len({row["train/temperature"] for row in rows} - {""}) > 1  # it is learned
    (checkpoint,) = (tmp_path / "run" / "checkpoints").glob("last.ckpt")
    stored = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert stored["batch_loss.loss.log_temperature"].shape == (1,)
    # killed before it saved the model: the checkpoint has the loss's parameters beside the model's
    run = tmp_path / "run"
    shutil.rmtree(run / "model")
    config = (run / "config.yaml").read_text()
    known = config.replace("first_and_last.FirstAndLast", "mean.Mean")  # of this installation
    known = known.replace("learned_temperature.LearnedTemperature", "info_nce.InfoNCE")
    (run / "config.yaml").write_text(re.sub(r"\n *weight_of_first:.*", "", known))
    consolidate_if_unfinished(str(run), trusted=())
    assert (run / "model" / "quarry_contract.json").is_file()


def test_the_distilling_loss_works_as_written() -> None:
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    code = dict(FILE.findall(page))["src/quarry/losses/pair_distillation.py"]
    exec(compile(code.replace("from __future__ import annotations", ""), "page", "exec"), names)
    loss = names["PairDistillation"](temperature=0.5)
    assert loss.needs_scores
    queries, passages = torch.eye(2)[:1], torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    inputs = LossInputs(
        queries=queries,
        passages=passages,
        positive_index=torch.tensor([0]),
        scores=torch.tensor([3.0, 2.0]),
    )
    # the student prefers the positive by 2, the teacher by 1
    probability = 1 / (1 + math.exp(-1))
    expected = math.log1p(math.exp(-2)) + 2 * (1 - probability)
    assert loss(inputs).loss.item() == pytest.approx(expected, rel=1e-5)
