"""A stored model is exported and verified as it was saved; what was changed since is named."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file, save_file

from helpers.models import tiny_qwen
from helpers.saved_runs import FULL, LORA, saved_run
from helpers.tokenizers import chat_tokenizer
from quarry.errors import UserError
from quarry.models.saved import CONTRACT_FILE, GOLDEN_FILE, read_contract
from quarry.tasks.export import export
from quarry.tasks.verify import verify

PROMPTS: dict[str, dict[str, Any]] = {
    "prefix": {"query": "Query:{text}", "document": "Passage:{text}"},
    "tail": {"query": 'Q: "{text}" is', "document": '"{title} {text}" is', "end_token": None},
}
LENGTHS = {"max_query_length": 60, "max_document_length": 70}


def saved(folder: Path, *, prompt: str) -> Path:
    """A run beside its base: all weights and a prefix, or an adapter and text after the text."""
    base = folder / "base"
    tiny_qwen(vocab_size=448).save_pretrained(base)
    chat_tokenizer().save_pretrained(base)
    adapter = LORA if prompt == "tail" else FULL
    settings = PROMPTS[prompt] | LENGTHS
    return saved_run(folder / "run", base=base, prompt=settings, adapter=adapter)


@pytest.fixture(scope="module")
def masters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {prompt: saved(tmp_path_factory.mktemp(prompt), prompt=prompt) for prompt in PROMPTS}


@pytest.fixture(params=list(PROMPTS))
def run(masters: dict[str, Path], request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy to spoil: fully fine-tuned with a prefix, or an adapter with text after the text."""
    return Path(shutil.copytree(masters[request.param], tmp_path / "run"))


@pytest.fixture
def full(masters: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(masters["prefix"], tmp_path / "run"))


def of(run: Path | None) -> DictConfig:
    return OmegaConf.create({"run": None if run is None else str(run)})


def test_an_export_that_does_not_fit_its_disk_is_refused_before_anything_is_written(
    masters: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quarry.tasks.export.free_bytes", lambda _: 100)
    target = tmp_path / "new" / "export"
    with pytest.raises(UserError, match=r"the weights in bfloat16 take .* task.folder=DIR"):
        export(of(masters["prefix"]), dtype="bfloat16", folder=str(target))
    assert not target.parent.exists()


def edit_json(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def scale_weights(folder: Path, *, name: str, by: float) -> None:
    weights = load_file(folder / "model.safetensors")
    weights[name] = weights[name] * by
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_exported_and_verified(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(of(run), export=None).keys() == {"verify/quarry"}
    result = export(of(run), dtype="float32", folder=None)
    assert result["export/cosine_smallest"] > 1 - 1e-6
    assert str(run / "export") in capsys.readouterr().out
    result = verify(of(run), export=None)
    assert result.keys() == {"verify/quarry", "verify/sentence-transformers"}
    assert min(result.values()) > 1 - 1e-6
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines() if line.endswith("1.000000")] == [
        "question", "punctuation", "script", "title", "code", "math", "borders", "long",
    ]  # fmt: skip


def test_the_code_of_the_card_gives_our_embeddings(
    full: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By sentence-transformers, by Quarry and by transformers alone."""
    export(of(full), dtype="float32", folder=None)
    monkeypatch.chdir(full)
    card = (full / "export" / "README.md").read_text(encoding="utf-8")
    blocks = [part.split("```")[0] for part in card.split("```python\n")[1:]]
    assert len(blocks) == 3
    found: list[dict[str, Any]] = [{} for _ in blocks]
    for block, names in zip(blocks, found, strict=True):
        exec(block, names)
    for names in found[1:]:
        for key in ("queries", "documents"):
            ours, theirs = (torch.as_tensor(each[key]) for each in (found[0], names))
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_exported_as_onnx_and_verified(full: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = export(of(full), dtype="float32", folder=None, format="onnx")
    assert result["export/cosine_smallest"] > 1 - 1e-6
    assert str(full / "onnx" / "model.onnx") in capsys.readouterr().out
    assert not (full / "export").exists()
    found = verify(of(full), export=None)
    assert found.keys() == {"verify/quarry", "verify/onnxruntime"}
    assert min(found.values()) > 1 - 1e-6
    scale_weights(full / "model", name="norm.weight", by=-1.0)
    with pytest.raises(UserError, match=r"quarry no longer gives"):
        verify(of(full), export=None)
    with pytest.raises(UserError, match=r"onnx exists and is not overwritten"):
        export(of(full), dtype="float32", folder=None, format="onnx")


def test_onnx_has_options_of_its_own(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UserError, match=r"task\.format=gguf: not one of sentence_transformers, onnx"
    ):
        export(of(full), dtype="float32", folder=None, format="gguf")
    with pytest.raises(UserError, match=r"task\.dtype=bfloat16: task\.format=onnx writes float32"):
        export(of(full), dtype="bfloat16", folder=None, format="onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"needs onnxruntime.*'quarry-retrieval\[onnx\]'"):
        export(of(full), dtype="float32", folder=None, format="onnx")
    assert not (full / "onnx").exists()


def test_an_exported_folder_is_a_model_folder_that_verifies_itself(run: Path) -> None:
    export(of(run), dtype="float32", folder=None)
    result = verify(of(run / "export"), export=None)
    assert result.keys() == {"verify/quarry", "verify/sentence-transformers"}
    assert min(result.values()) > 1 - 1e-6
    was, now = read_contract(run / "model"), read_contract(run / "export")
    assert was is not None
    assert now is not None
    source = now.pop("exported_from")
    assert source["source"] == str(run / "model")
    assert source["fingerprint"] != was["base"]["fingerprint"]
    assert now["golden"].pop("texts")[0]["role"] == "query"
    assert now == was
    scale_weights(run / "export", name="norm.weight", by=-1.0)
    with pytest.raises(UserError, match="quarry no longer gives"):
        verify(of(run / "export"), export=None)


def test_a_folder_in_half_precision_verifies_itself_by_its_own_weights(full: Path) -> None:
    stated = export(of(full), dtype="bfloat16", folder=None)
    assert json.loads((full / "export" / CONTRACT_FILE).read_text())["dtype"] == "bfloat16"
    result = verify(of(full / "export"), export=None)
    assert result["verify/quarry"] > 1 - 1e-6, "in float32, as the vectors beside it"
    assert result["verify/sentence-transformers"] > 0.99
    assert result["verify/sentence-transformers"] != stated["export/cosine_smallest"]


def test_an_export_is_exported_again_elsewhere(full: Path) -> None:
    export(of(full), dtype="float32", folder=None)
    with pytest.raises(UserError, match=r"export exists .*task\.folder=DIR"):
        export(of(full / "export"), dtype="float32", folder=None)
    export(of(full / "export"), dtype="float32", folder=str(full / "again"))
    assert min(verify(of(full / "again"), export=None).values()) > 1 - 1e-6


def test_an_export_goes_into_the_directory_that_the_command_names(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = tmp_path / "named"
    monkeypatch.setattr("quarry.tasks.export.named_run_directory", lambda config: named)
    export(of(full), dtype="float32", folder=None)
    assert (named / "export" / "modules.json").is_file()
    assert not (full / "export").exists()


def test_a_model_folder_is_as_good_as_its_run(full: Path) -> None:
    export(of(full / "model"), dtype="float32", folder=str(full / "elsewhere"))
    result = verify(of(full / "model"), export=str(full / "elsewhere"))
    assert min(result.values()) > 1 - 1e-6
    assert not (full / "export").exists()


def test_half_precision_is_held_to_what_it_said_it_costs(full: Path) -> None:
    stated = export(of(full), dtype="bfloat16", folder=None)
    assert stated["export/cosine_smallest"] < 1 - 1e-7
    result = verify(of(full), export=None)
    assert result["verify/sentence-transformers"] == pytest.approx(
        stated["export/cosine_smallest"], abs=1e-6
    )
    scale_weights(full / "export", name="layers.1.mlp.down_proj.weight", by=1.5)
    with pytest.raises(UserError, match=r"sentence-transformers no longer gives.*export again"):
        verify(of(full), export=None)


def test_changed_weights_are_found(full: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scale_weights(full / "model", name="layers.0.self_attn.v_proj.weight", by=1.2)
    with pytest.raises(UserError, match=r"quarry no longer gives .*'question' \(0\.9\d+\)"):
        verify(of(full), export=None)
    assert "question" in capsys.readouterr().out  # the table is shown all the same


def test_an_export_of_another_model_is_found(full: Path) -> None:
    export(of(full), dtype="float32", folder=None)
    scale_weights(full / "export", name="norm.weight", by=-1.0)
    with pytest.raises(UserError, match="sentence-transformers no longer gives"):
        verify(of(full), export=None)


def test_changed_tokens_are_named_before_anything_is_encoded(full: Path) -> None:
    file = full / "model" / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    assert tokenizer["normalizer"]["normalizers"].pop() == {"type": "Lowercase"}
    file.write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match=r"golden text '\w+' is other tokens .*from token \d+ on"):
        verify(of(full), export=None)


def test_more_tokens_are_other_tokens(full: Path) -> None:
    contract = json.loads((full / "model" / CONTRACT_FILE).read_text())
    contract["golden"]["token_ids"][1].append(7)
    edit_json(full / "model" / CONTRACT_FILE, **contract)
    with pytest.raises(UserError, match=r"'punctuation' is other tokens.*\[\] \(''\) instead of"):
        verify(of(full), export=None)


@pytest.mark.parametrize(
    "golden",
    [None, [], {}, {"token_ids": []}, {"dtype": "int8"}],
    ids=str,
)
def test_a_contract_without_golden_texts_is_refused(full: Path, golden: Any) -> None:
    file = full / "model" / CONTRACT_FILE
    if golden == {"dtype": "int8"}:
        golden = json.loads(file.read_text())["golden"] | golden
    edit_json(file, golden=golden)
    with pytest.raises(UserError, match="no golden texts of this version"):
        verify(of(full), export=None)


def test_missing_and_damaged_vectors_are_refused(full: Path) -> None:
    file = full / "model" / GOLDEN_FILE
    save_file({"embeddings": torch.zeros(2, 32)}, file)
    with pytest.raises(UserError, match=r"shape \(2, 32\), and there are 8"):
        verify(of(full), export=None)
    file.write_bytes(b"")
    with pytest.raises(UserError, match="holds no golden vectors"):
        verify(of(full), export=None)
    file.unlink()
    with pytest.raises(UserError, match=f"{GOLDEN_FILE} is missing"):
        verify(of(full), export=None)


def test_golden_vectors_in_half_precision_are_replayed_in_it(full: Path) -> None:
    contract = json.loads((full / "model" / CONTRACT_FILE).read_text())
    edit_json(full / "model" / CONTRACT_FILE, golden=contract["golden"] | {"dtype": "bfloat16"})
    result = verify(of(full), export=None)
    assert 0.99 < result["verify/quarry"] < 1 - 1e-7  # the vectors are of float32 weights


def test_an_export_is_not_overwritten(full: Path) -> None:
    (full / "export").mkdir()
    with pytest.raises(UserError, match=r"export exists .*task\.folder=DIR"):
        export(of(full), dtype="float32", folder=None)


def test_an_adapter_whose_base_has_moved(masters: dict[str, Path], tmp_path: Path) -> None:
    run = Path(shutil.copytree(masters["tail"], tmp_path / "run"))
    moved = Path(shutil.copytree(masters["tail"].parent / "base", tmp_path / "moved"))
    edit_json(run / "model" / "adapter_config.json", base_model_name_or_path="/gone/base")
    with pytest.raises(UserError, match="/gone/base"):
        verify(of(run), export=None)
    verify(of(run), export=None, base_path=str(moved))
    export(of(run), dtype="float32", folder=None, base_path=str(moved))


@pytest.mark.parametrize("task", [export, verify])
def test_what_is_no_stored_model_is_refused(task: Any, full: Path, tmp_path: Path) -> None:
    more = {"dtype": "float32", "folder": None} if task is export else {"export": None}
    (full / "model" / CONTRACT_FILE).unlink()
    for run, message in (
        (None, "run is not set"),
        (tmp_path / "nowhere", "no such folder"),
        (tmp_path, r"holds a config\.json"),
        (full, f"has no {CONTRACT_FILE}"),
    ):
        with pytest.raises(UserError, match=message):
            task(of(run), **more)


def test_options_of_the_tasks_are_checked(full: Path) -> None:
    with pytest.raises(UserError, match=r"task\.dtype=int8 is not one of float32, bfloat16"):
        export(of(full), dtype="int8", folder=None)
    with pytest.raises(UserError, match=r"task\.export=/nowhere: no such folder"):
        verify(of(full), export="/nowhere")
    (full / "export").mkdir()
    with pytest.raises(UserError, match=r"no readable quarry_export\.json"):
        verify(of(full), export=None)


@pytest.mark.parametrize("task", [export, verify])
def test_other_overrides_are_refused(
    task: Any, full: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"dtype": "float32", "folder": None} if task is export else {"export": None}
    keys = ["task", "run", "task.dtype", "hydra.run.dir", "prompt", "model.pooling"]
    monkeypatch.setattr("quarry.config.overrides.explicit_keys", lambda: keys)
    with pytest.raises(UserError, match=r"^prompt, model\.pooling cannot be changed by task="):
        task(of(full), **more)


def test_without_sentence_transformers_nothing_is_written(
    full: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(UserError, match=r"task=export needs .* 'quarry-retrieval\[export\]'"):
        export(of(full), dtype="float32", folder=None)
    assert not (full / "export").exists()
