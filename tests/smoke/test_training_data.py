"""What a training file leaves out stands beside the numbers of the model that was trained on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from helpers.beir_folders import write_beir_folder
from helpers.commands import ROOT, SMALL
from quarry.config.schema import register_schemas
from quarry.tasks.train import train

TRAIN = """ask,reply,bad,source
read a line,def read_line(): pass,def write(): pass,web
write a line,def write_line(): pass,,web
close the file,def close_file(): pass,"def open(a, ""b""): pass",book
open a socket,,def close(): pass,web
sort a list,def sort(): pass,def read(): pass,
"""


@pytest.fixture(scope="module", autouse=True)
def _conf() -> Iterator[None]:
    register_schemas()
    with initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):
        yield


def test_what_is_left_out_is_in_the_results(tmp_path: Path) -> None:
    write_beir_folder(tmp_path / "set")
    (tmp_path / "train.csv").write_text(TRAIN, encoding="utf-8")
    run = tmp_path / "run"
    config = compose(
        "train",
        overrides=[
            *SMALL, "data=file", f"data.path={tmp_path / 'train.csv'}", "data.columns.query=ask",
            "data.columns.positive=reply", "data.columns.negative=bad", "trainer.max_steps=1",
            "data.global_batch_size=4",
            "benchmark=folder", "benchmark.split=test",
            f"benchmark.path={tmp_path / 'set'}",
            "evaluation.every_n_steps=0", "logger=none", f"paths.cache_dir={tmp_path / 'cache'}",
            f"paths.run_dir={run}", "trainer.accelerator=cpu",
        ],
    )  # fmt: skip
    train(config)
    sentences = [
        "1 of 5 lines have no positive and are skipped (20.0 %)",
        "keys that are not read: source (4 of 5 lines)",
    ]
    caveats = json.loads((run / "metrics.json").read_text())["caveats"]
    assert caveats["training data"] == sentences
    assert json.loads((run / "summary.json").read_text())["caveats"] == sentences
    report = (run / "report.md").read_text()
    for sentence in sentences:
        assert f"- training data: {sentence}." in report.replace("\\", "")
