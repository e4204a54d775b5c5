"""`python eval.py model.path=DIR` on folders of sentence-transformers: what is used is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from config.configurations import composed, opened
from helpers.beir_folders import write_beir_folder
from helpers.commands import Result
from helpers.sentence_folders import as_version_2, dense, edit, sentence_folder
from quarry.errors import UserError
from quarry.tasks.evaluate import evaluate

Run = Callable[..., Result]

MODEL, SETTINGS = "config_sentence_transformers.json", "sentence_bert_config.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that a folder can say at once."""
    path = tmp_path_factory.mktemp("models") / "sentence"
    folder = as_version_2(sentence_folder(path, denses=[dense(32, 12, nn.Tanh())]))
    prompts = {"query": "query: ", "passage": "passage: "}
    edit(folder / MODEL, prompts=prompts, default_prompt_name="passage", similarity_fn_name="dot")
    edit(folder / SETTINGS, do_lower_case=True, query_length=8)
    edit(folder / "1_Pooling" / "config.json", include_prompt=False)
    return folder


USED = {
    "prompt.query": ("query: {text}", f"{MODEL} (prompts.query)"),
    "prompt.document": ("{text}", "default"),
    "prompt.end_token": ("tokenizer", "tokenizer.json"),
    "prompt.max_query_length": (8, f"{SETTINGS} (query_length)"),
    "prompt.max_document_length": (12, "command line"),
    "model.pooling": ("mean, without the prompt", "1_Pooling/config.json"),
    "model.is_causal": ("as the architecture is", "config.json"),
    "model.normalize": (True, "modules.json (Normalize)"),
    "projections": ("32 to 12, Tanh", "2_Dense"),
    "lower_case": (True, f"{SETTINGS} (do_lower_case)"),
}


def test_what_a_folder_says_and_is_used_is_told_everywhere(
    command: Run, folder: Path, tmp_path: Path
) -> None:
    beir, run = write_beir_folder(tmp_path / "set"), tmp_path / "run"
    result = command(
        "eval.py", f"model.path={folder}", "benchmark=folder", f"benchmark.path={beir}",
        "prompt.max_document_length=12", "logger=none", f"hydra.run.dir={run}",
    )  # fmt: skip
    assert result.code == 0, result.err
    contract = json.loads((run / "provenance.json").read_text())["contract"]
    assert {k: (f["value"], f["source"]) for k, f in contract["parts"].items()} == USED
    (note,) = contract["notes"]
    assert "'passage'" in note
    assert json.loads((run / "metrics.json").read_text())["contract"] == {"dense": contract}
    (told,) = [x for x in (result.out + result.err).splitlines() if "How texts are fed" in x]
    assert note in result.out + result.err
    report = (run / "report.md").read_text()
    title, _, section = report.partition("## How texts were fed: dense")
    assert title != report
    rows = {line.split("|")[1].strip(): line for line in section.splitlines() if "|" in line}
    for key, (value, source) in USED.items():
        assert f"{key}={value!r}" in told
        assert source in told
        assert json.dumps(value) in rows[key]
        assert source in rows[key].replace("\\", "")  # which escapes for Markdown
    assert "Note: " in section
    assert "passage" in section.partition("Note: ")[2]


def test_a_folder_that_cannot_be_followed_leaves_no_run_directory(
    folder: Path, tmp_path: Path
) -> None:
    changed, run = tmp_path / "changed", tmp_path / "run"
    shutil.copytree(folder, changed)
    edit(changed / "1_Pooling" / "config.json", word_embedding_dimension=48)
    (changed / "modules.json").write_text(
        json.dumps(json.loads((changed / "modules.json").read_text())[:2])
    )
    beir = write_beir_folder(tmp_path / "set")
    with opened():
        config = composed(
            "eval", f"model.path={changed}", "benchmark=folder", f"benchmark.path={beir}",
            "logger=none", f"paths.run_dir={run}", f"paths.cache_dir={tmp_path / 'cache'}",
        )  # fmt: skip
    with pytest.raises(UserError, match=r"1_Pooling/config\.json: .* 48.* 32 .*hidden_size"):
        evaluate(config)
    assert not run.exists()
