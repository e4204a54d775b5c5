"""LoRA: what is trained, what is saved, and that it comes back the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModel

from helpers.models import letter_tokenizer, tiny_folder, tiny_qwen
from helpers.pickles import Bomb
from helpers.sentence_folders import bert, plain_folder
from quarry.data.packing import pack
from quarry.errors import UserError
from quarry.models.adapters.full import FullFineTuning
from quarry.models.adapters.lora import LoRA
from quarry.models.adapters.stored_adapter import read_adapter, stored_part
from quarry.models.bi_encoder import BiEncoder
from quarry.models.building import build_bi_encoder, check_model
from quarry.models.model_spec import ModelSpec, model_spec
from quarry.models.pooling.last_token import LastToken
from quarry.models.saved import save_model

TOKENS = pack([[5, 6, 7, 8], [9], [3, 4]])
TARGETS = ("q_proj", "v_proj", "down_proj")


def lora(**more: Any) -> LoRA:
    return LoRA(**({"r": 4, "alpha": 8, "dropout": 0.0, "target_modules": TARGETS} | more))


def spec(path: Path, **more: Any) -> ModelSpec:
    settings: dict[str, Any] = {
        "path": str(path),
        "revision": None,
        "replica": None,
        "pooling": LastToken(),
        "adapter": FullFineTuning(),
        "is_causal": True,
        "normalize": True,
        "dtype": "float32",
        "attention": "auto",
        "linear_precision": None,
        "compile": False,
        "gradient_checkpointing": False,
        "trust_remote_code": False,
    }
    return model_spec(**(settings | more))


def embeddings(model: BiEncoder) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(TOKENS)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_folder(tmp_path / "base")


@pytest.fixture
def model(base: Path) -> BiEncoder:
    """A bi-encoder with a LoRA that is not zero."""
    built = build_bi_encoder(spec(base, adapter=lora()))
    torch.manual_seed(1)
    for name, parameter in built.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return built


@pytest.fixture
def saved(model: BiEncoder, tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "model"
    save_model(folder, model=model, tokenizer=letter_tokenizer(), contract={})
    return folder


def test_only_the_two_small_matrices_are_trained() -> None:
    adapted = lora()(tiny_qwen())
    trained = {n: p for n, p in adapted.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 2 * len(TARGETS)  # A and B, two layers
    assert all("lora_" in name for name in trained)
    # q_proj 32 -> 32, v_proj 32 -> 16, down_proj 64 -> 32, rank 4
    per_layer = 4 * (32 + 32) + 4 * (32 + 16) + 4 * (64 + 32)
    assert sum(p.numel() for p in trained.values()) == 2 * per_layer


def test_an_untrained_lora_changes_nothing(base: Path) -> None:
    adapted = build_bi_encoder(spec(base, adapter=lora()))
    assert torch.equal(embeddings(adapted), embeddings(build_bi_encoder(spec(base))))


def test_a_lora_equals_weights_with_the_product_added(base: Path, model: BiEncoder) -> None:
    plain = build_bi_encoder(spec(base))
    modules = dict(plain.backbone.named_modules())
    with torch.no_grad():
        for name, layer in model.backbone.base_model.model.named_modules():  # type: ignore[union-attr]
            if hasattr(layer, "lora_A"):
                product = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
                modules[name].weight += 8 / 4 * product
    adapted = embeddings(model)
    torch.testing.assert_close(adapted, embeddings(plain), atol=1e-5, rtol=0)
    assert not torch.allclose(adapted, embeddings(build_bi_encoder(spec(base))), atol=1e-2)


def test_a_saved_adapter_loads_through_the_factory(model: BiEncoder, saved: Path) -> None:
    assert (saved / "adapter_model.safetensors").exists()
    assert not (saved / "model.safetensors").exists()
    for path in (saved, saved.parent):
        again = build_bi_encoder(spec(path))
        assert torch.equal(embeddings(again), embeddings(model))
        assert any(p.requires_grad for p in again.parameters())  # it can be trained further


def test_a_saved_adapter_loads_through_peft_alone(
    base: Path, model: BiEncoder, saved: Path
) -> None:
    alone = PeftModel.from_pretrained(AutoModel.from_pretrained(base), str(saved)).eval()
    with torch.inference_mode():
        states = alone(input_ids=torch.tensor([[5, 6, 7, 8]])).last_hidden_state
    expected = torch.nn.functional.normalize(states[:, -1], dim=-1)
    # fp32, another attention kernel
    torch.testing.assert_close(embeddings(model)[:1], expected, atol=1e-5, rtol=0)


def test_an_adapter_without_tokenizer_takes_that_of_its_base(saved: Path) -> None:
    for file in saved.glob("tokenizer*"):
        file.unlink()
    assert spec(saved).source.load_tokenizer().encode("ab") == letter_tokenizer().encode("ab")


def test_an_adapter_option_without_effect_warns(
    saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build_bi_encoder(spec(saved))
    assert not caplog.records
    built = build_bi_encoder(spec(saved, adapter=lora(r=2)))
    assert "model/adapter has no effect" in caplog.text
    ranks = {p.shape[0] for n, p in built.named_parameters() if "lora_A" in n}
    assert ranks == {4}


@pytest.mark.parametrize("target_modules", [["no_proj"], []])
def test_wrong_target_modules_are_refused(target_modules: list[str]) -> None:
    with pytest.raises(UserError, match=r"target_modules=\[.*no layer of Qwen2Model .* q_proj"):
        lora(target_modules=target_modules)(tiny_qwen())


def test_single_names_that_no_layer_has_are_told(caplog: pytest.LogCaptureFixture) -> None:
    adapted = lora(target_modules=["q_proj", "no_proj"])(tiny_qwen())
    assert "no layer of Qwen2Model is called no_proj" in caplog.text
    assert any("q_proj.lora_A" in name for name, _ in adapted.named_parameters())


@pytest.mark.parametrize("setting", [{"r": 0}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_impossible_settings_are_refused_before_any_model_loads(setting: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"model\.adapter\.r=.*model\.adapter\.dropout="):
        lora(**setting)


def test_a_pickled_adapter_is_read_where_it_holds_weights_alone(saved: Path) -> None:
    expected = embeddings(build_bi_encoder(spec(saved)))
    weights = load_file(saved / "adapter_model.safetensors")
    (saved / "adapter_model.safetensors").unlink()
    torch.save(weights, saved / "adapter_model.bin")
    assert torch.equal(embeddings(build_bi_encoder(spec(saved))), expected)
    torch.save({**weights, "more": Bomb(saved / "opened")}, saved / "adapter_model.bin")
    with pytest.raises(UserError, match=r"adapter_model\.bin: holds more than weights"):
        build_bi_encoder(spec(saved))
    assert not (saved / "opened").exists()


def test_a_base_that_is_gone_is_named(base: Path, saved: Path) -> None:
    shutil.rmtree(base)
    with pytest.raises(UserError, match="no local folder") as info:
        build_bi_encoder(spec(saved))
    assert str(base) in str(info.value)


def test_the_adapter_config_names_its_base(base: Path, saved: Path) -> None:
    config = json.loads((saved / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base)
    assert (config["r"], config["lora_alpha"]) == (4, 8)


def test_what_would_be_trained_is_counted_without_training_it(base: Path) -> None:
    with torch.device("meta"):
        outline = tiny_qwen()
    part = lora(dropout=0.1).trained_part(outline)
    adapted = lora()(tiny_qwen())
    trained = [p for p in adapted.parameters() if p.requires_grad]
    assert part.num_parameters == sum(p.numel() for p in trained)
    assert part.num_inputs == 2 * (32 + 32 + 64)
    assert part.num_low_rank == 2 * 3 * 4
    assert (part.is_beside, part.dropout) == (True, 0.1)
    whole = FullFineTuning().trained_part(outline)
    assert whole.num_parameters == sum(p.numel() for p in tiny_qwen().parameters())
    assert not whole.is_beside
    saved = base.parent / "adapter"
    adapted.save_pretrained(saved)
    stored = stored_part(read_adapter(str(saved)), outline)
    assert stored.num_parameters == part.num_parameters
    assert (stored.num_inputs, stored.num_low_rank) == (part.num_inputs, part.num_low_rank)
    assert stored.dropout == 0.0


def test_names_that_no_layer_has_are_refused_before_weights_are_read(tmp_path: Path) -> None:
    folder = plain_folder(tmp_path / "bert", bert())
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError) as caught:
        check_model(spec(folder, adapter=lora()), is_trained=True, on_cpu=True)
    message = str(caught.value)
    assert "model.adapter.target_modules=[q_proj,v_proj,down_proj]" in message
    assert "dense, key, query, value" in message
    with pytest.raises(UserError, match="dense, key, query, value"):
        lora()(bert())
    assert lora(target_modules=["query", "value"]).trained_part(bert()).num_parameters == 4 * 4 * 64
