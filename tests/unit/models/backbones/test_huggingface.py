"""Folders load exactly or not at all; nothing that is pickled is opened."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM, PreTrainedModel, Qwen2ForCausalLM, Qwen2Model

from helpers.architectures import tiny_backbone
from helpers.models import BOS, letter_ids, letter_tokenizer, tiny_folder, tiny_qwen
from helpers.pickles import Bomb
from quarry.errors import MissingPathError, UserError
from quarry.models.backbones.huggingface import (
    load_backbone,
    load_tokenizer,
    resolve_source,
    resolve_tokenizer,
)

Weights = dict[str, torch.Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_folder(tmp_path / "tiny")


def load(folder: Path | str, **more: Any) -> PreTrainedModel:
    return load_backbone(str(folder), dtype=torch.float32, **more)


def assert_same_weights(model: PreTrainedModel, reference: PreTrainedModel) -> None:
    ours, theirs = model.state_dict(), reference.state_dict()
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        assert torch.equal(weight, theirs[name]), name


def rewrite(folder: Path, change: dict[str, torch.Tensor | None]) -> None:
    """Replaces, adds or (None) removes weights of a saved folder."""
    file = folder / "model.safetensors"
    weights: Weights = load_file(file)
    weights |= {name: weight for name, weight in change.items() if weight is not None}
    for name in [name for name, weight in change.items() if weight is None]:
        del weights[name]
    save_file(weights, file, metadata={"format": "pt"})


def test_a_folder_loads_as_it_was_saved(folder: Path) -> None:
    model = load(folder)
    assert isinstance(model, Qwen2Model)
    assert_same_weights(model, tiny_qwen())
    assert load_tokenizer(str(folder)).encode("ab") == letter_ids("ab")


def test_the_dtype_is_the_one_asked_for(folder: Path) -> None:
    model = load_backbone(str(folder), dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    reference = tiny_qwen(dtype=torch.bfloat16)
    assert_same_weights(model, reference)


@pytest.mark.parametrize("is_tied", [True, False])
def test_the_backbone_of_a_language_model_is_loaded_without_its_head(
    tmp_path: Path, is_tied: bool
) -> None:
    backbone = tiny_qwen(tie_word_embeddings=is_tied)
    language_model = Qwen2ForCausalLM(backbone.config)
    language_model.model = backbone
    language_model.tie_weights()
    language_model.save_pretrained(tmp_path)
    has_head = "lm_head.weight" in load_file(tmp_path / "model.safetensors")
    assert has_head == (not is_tied)

    model = load(tmp_path)
    assert type(model) is Qwen2Model
    assert_same_weights(model, backbone)


def test_a_missing_weight_is_refused(folder: Path) -> None:
    rewrite(folder, {"layers.1.mlp.up_proj.weight": None})
    with pytest.raises(UserError, match=r"missing \['layers\.1\.mlp\.up_proj\.weight'\]"):
        load(folder)


def test_a_leftover_weight_is_refused(folder: Path) -> None:
    rewrite(folder, {"layers.0.self_attn.q_norm.weight": torch.ones(8)})
    with pytest.raises(UserError, match=r"left over \['layers\.0\.self_attn\.q_norm\.weight'\]"):
        load(folder)


def test_a_deeper_checkpoint_than_its_config_is_refused(folder: Path) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config |= {"num_hidden_layers": 1, "layer_types": ["full_attention"]}
    file.write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"left over \['layers\.1"):
        load(folder)


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    rewrite(folder, {"layers.0.mlp.up_proj.weight": torch.ones(60, 32)})
    with pytest.raises(UserError, match=r"shape|size"):
        load(folder)


def test_an_unknown_architecture_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "no_such_model"}))
    with pytest.raises(UserError, match="no_such_model"):
        load(folder)


def test_a_pickled_checkpoint_is_refused_and_not_opened(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    with pytest.raises(FileNotFoundError):
        mark.stat()
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(UserError, match=r"safetensors"):
        load(folder)
    assert not mark.exists()
    pickle.loads((folder / "pytorch_model.bin").read_bytes()).close()
    assert mark.exists(), "the bomb works, so that not finding the file above means something"


def test_damaged_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(UserError, match="Cannot load the model"):
        load(folder)


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    tiny_qwen().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"Cannot load the tokenizer.*tokenizer\.json"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("load_it", [load, load_tokenizer])
def test_a_hub_id_that_cannot_be_reached_is_one_message(load_it: Any) -> None:
    # tests run with HF_HUB_OFFLINE=1, so that this asks no network
    with pytest.raises(
        UserError, match=r"'nobody/no-such-model'.*no local folder.*network"
    ) as info:
        load_it("nobody/no-such-model")
    assert "\n" not in str(info.value)
    assert len(str(info.value)) < 700


def test_a_folder_a_run_directory_and_a_hub_id(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    tiny_qwen().save_pretrained(run / "model")
    assert resolve_source(str(folder)) == str(folder)
    assert resolve_source(str(run)) == str(run / "model")
    for hub_id in ("Qwen/Qwen2.5-0.5B", "gpt2"):
        assert resolve_source(hub_id) == hub_id


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match=r"subfolder model/ holds a config\.json"):
        resolve_source(str(tmp_path))


def test_an_onnx_export_is_no_model_to_load(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    with pytest.raises(MissingPathError, match=r"is an ONNX export.*task=verify run=RUN_DIR"):
        resolve_source(str(tmp_path))


@pytest.mark.parametrize("path", ["/no/such", "./no-such", "~/no-such", "a/b/c", "../x"])
def test_a_path_that_is_not_there_is_refused(path: str) -> None:
    with pytest.raises(MissingPathError, match=r"model\.path=.*no such folder"):
        resolve_source(path)


@pytest.mark.parametrize("has_wish", [False, True])
def test_a_bos_of_tokenizer_json_is_kept(tmp_path: Path, has_wish: bool) -> None:
    letter_tokenizer(has_bos=True).save_pretrained(tmp_path)
    _wish_for_bos(tmp_path, has_wish)
    assert load_tokenizer(str(tmp_path)).encode("ab") == [BOS, *letter_ids("ab")]


def test_a_bos_that_only_the_settings_ask_for_is_put_in_front_and_saved(tmp_path: Path) -> None:
    letter_tokenizer().save_pretrained(tmp_path / "one")
    _wish_for_bos(tmp_path / "one", True)
    tokenizer = load_tokenizer(str(tmp_path / "one"))
    tokenizer.save_pretrained(tmp_path / "two")
    for loaded in (tokenizer, load_tokenizer(str(tmp_path / "two"))):
        assert loaded.encode("ab") == [BOS, *letter_ids("ab")]
        assert loaded.encode("ab", add_special_tokens=False) == letter_ids("ab")


def test_no_bos_appears_that_nobody_asked_for(tmp_path: Path) -> None:
    letter_tokenizer().save_pretrained(tmp_path)
    _wish_for_bos(tmp_path, False)
    assert load_tokenizer(str(tmp_path)).encode("ab") == letter_ids("ab")


def _wish_for_bos(folder: Path, is_wanted: bool) -> None:
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8")) | {"bos_token": "<bos>"}
    if is_wanted:
        settings["add_bos_token"] = True
    file.write_text(json.dumps(settings), encoding="utf-8")


def test_a_tokenizer_needs_no_weights_beside_it(tmp_path: Path) -> None:
    letter_tokenizer().save_pretrained(tmp_path / "run" / "model")
    inner = str(tmp_path / "run" / "model")
    assert resolve_tokenizer(inner) == resolve_tokenizer(str(tmp_path / "run")) == inner
    assert resolve_tokenizer("Qwen/Qwen2.5-7B") == "Qwen/Qwen2.5-7B"
    with pytest.raises(MissingPathError, match=r"model\.tokenizer_path=.* holds a tokenizer\.json"):
        resolve_tokenizer(str(tmp_path))
    with pytest.raises(MissingPathError, match="no such folder"):
        resolve_tokenizer(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("model_type", ["bert", "modernbert"])
def test_an_encoder_with_its_masked_language_model_head_is_loaded_as_a_backbone(
    model_type: str, tmp_path: Path
) -> None:
    backbone = tiny_backbone(model_type)
    masked = AutoModelForMaskedLM.from_config(backbone.config)
    masked.save_pretrained(tmp_path)
    model = load(tmp_path)
    assert type(model) is type(backbone)
    assert getattr(model, "pooler", None) is None
    assert "pooler" not in str(model.state_dict().keys())
    states = masked.base_model.state_dict()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, states[name]), name
    model.save_pretrained(tmp_path / "again")
    load(tmp_path / "again")
