"""Replicas: the hub's files in small, loaded without a weight too many or too few."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from packaging.version import Version
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLModel,
    Qwen2ForCausalLM,
    Qwen2Model,
)

from helpers.replicas import MODELS, TEXTS, VARIANTS, replica
from quarry.data.packing import pack
from quarry.data.prompts import Prompt
from quarry.data.tokenization import TextTokenizer, TokenizedText
from quarry.errors import UserError
from quarry.models.adapters.lora import LoRA
from quarry.models.backbones.huggingface import load_backbone, load_tokenizer
from quarry.models.bi_encoder import BiEncoder
from quarry.models.memory import memory_need
from quarry.models.pooling.last_token import LastToken
from quarry.models.saved import save_model
from quarry.stand_ins.replica import QwenReplica
from quarry.stand_ins.replica_tokenizer import ChatML
from quarry.types import Query

QUERIES = ("what is love", "what is hate", "read a file", "def add(a, b):\n    return a + b")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(variant: str, cache: Path) -> Path:
    return replica(variant, cache).folder()


def config_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))


def digests(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def rows(tokenizer: Any, prompt: Prompt, texts: tuple[str, ...] = QUERIES) -> list[TokenizedText]:
    queries = [Query(query_id=str(i), text=text) for i, text in enumerate(texts)]
    return TextTokenizer(tokenizer=tokenizer, prompt=prompt)(queries, "query")


def test_the_folder_is_the_hubs_with_its_head_in_bfloat16(variant: str, folder: Path) -> None:
    weights, config = load_file(folder / "model.safetensors"), config_of(folder)
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    assert ("lm_head.weight" in weights) is not config["tie_word_embeddings"]
    assert "model.layers.1.self_attn.q_proj.bias" in weights
    assert any(name.startswith("visual.") for name in weights) is (variant == "qwen-vl")
    assert config["vocab_size"] == len(weights["model.embed_tokens.weight"])
    assert config["vocab_size"] % 128 == 0
    is_vl = variant == "qwen-vl"
    auto = AutoModelForImageTextToText if is_vl else AutoModelForCausalLM
    model, info = auto.from_pretrained(folder, output_loading_info=True)
    expected = Qwen2_5_VLForConditionalGeneration if is_vl else Qwen2ForCausalLM
    assert type(model) is expected
    assert config["architectures"] == [expected.__name__]
    assert not info["missing_keys"] | info["unexpected_keys"]


def test_the_backbone_loads_complete_and_without_head(variant: str, folder: Path) -> None:
    model = load_backbone(str(folder), dtype=torch.float32)
    weights = load_file(folder / "model.safetensors")
    assert type(model) is (Qwen2_5_VLModel if variant == "qwen-vl" else Qwen2Model)
    assert not [name for name, _ in model.named_parameters() if "lm_head" in name]
    backbone = {name for name in weights if name != "lm_head.weight"}
    loaded = {
        name if name.startswith("visual.") else "model." + name.removeprefix("language_model."): p
        for name, p in model.named_parameters()
    }
    assert loaded.keys() == backbone
    for name, parameter in loaded.items():
        assert torch.equal(parameter, weights[name].float()), name


@pytest.mark.parametrize(
    ("name", "theta", "context"),
    [
        ("qwen-base", 1_000_000, 131_072),
        ("qwen-instruct", 1_000_000, 32_768),
        ("qwen-coder", 1_000_000, 32_768),
        ("qwen-coder-instruct", 1_000_000, 32_768),
        ("qwen-math", 10_000, 4_096),
        ("qwen-math-instruct", 10_000, 4_096),
        ("qwen-r1", 10_000, 131_072),
        ("qwen-vl", 1_000_000, 128_000),
    ],
)
def test_the_quirks_reach_the_loaded_backbone(
    cache: Path, name: str, theta: float, context: int
) -> None:
    model = load_backbone(str(replica(name, cache).folder()), dtype=torch.float32)
    config = model.config.get_text_config()
    assert config.rope_parameters["rope_theta"] == theta
    assert config.max_position_embeddings == context
    assert config.num_key_value_heads < config.num_attention_heads
    text = getattr(model, "language_model", model)
    frequencies = text.rotary_emb.inv_freq
    assert frequencies[1].item() == pytest.approx(theta ** (-2 / 16), rel=1e-6)  # 16 dims a head
    if name == "qwen-vl":
        assert sum(config.rope_parameters["mrope_section"]) == 8


def test_end_ids_agree_between_config_and_tokenizer(variant: str, folder: Path) -> None:
    tokenizer, config = load_tokenizer(str(folder)), config_of(folder)
    assert config["eos_token_id"] == tokenizer.eos_token_id
    assert config["bos_token_id"] == tokenizer.pad_token_id == min(tokenizer.added_tokens_decoder)
    assert len(tokenizer) <= config["vocab_size"]
    is_base = variant in ("qwen-base", "qwen-coder", "qwen-math")
    if variant == "qwen-r1":
        assert tokenizer.eos_token == "<｜end▁of▁sentence｜>"
    else:
        assert tokenizer.eos_token == ("<|endoftext|>" if is_base else "<|im_end|>")


def test_tied_and_untied_heads_both_occur(cache: Path) -> None:
    tied = {
        name for name in VARIANTS if config_of(replica(name, cache).folder())["tie_word_embeddings"]
    }
    assert tied == {"qwen-base", "qwen-math"}


def test_what_fits_is_told_before_loading(folder: Path) -> None:
    model = load_backbone(str(folder), dtype=torch.float32)
    need = memory_need(model.config, dtype=torch.bfloat16)
    assert need.num_parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", ["qwen-r1", "qwen-vl"])
def test_the_same_recipe_gives_the_same_files(tmp_path: Path, cache: Path, name: str) -> None:
    expected = torch.rand(1, generator=torch.manual_seed(3))
    torch.manual_seed(3)
    one, two = replica(name, cache).folder(), replica(name, tmp_path).folder()
    assert torch.equal(torch.rand(1), expected)  # making it leaves the random numbers alone
    assert one.name == two.name
    assert digests(one) == digests(two)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(digests(one))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 99},
        {"texts": lambda: TEXTS[1:]},
        {"rope_theta": 10_000},
        {"has_tied_embeddings": False},
        {"dialect": ChatML(end_token="<|endoftext|>", system_line="Be brief.")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_recipe_is_another_folder(cache: Path, change: dict[str, Any]) -> None:
    one, two = replica("qwen-base", cache).folder(), replica("qwen-base", cache, **change).folder()
    assert one != two
    assert digests(one) != digests(two)


def test_no_two_of_the_eight_are_alike(cache: Path) -> None:
    folders = [replica(name, cache).folder() for name in VARIANTS]
    assert len({digests(folder)["model.safetensors"] for folder in folders}) == len(VARIANTS) == 8


def test_what_is_there_is_not_made_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = replica("qwen-base", cache).folder()
    monkeypatch.setattr(QwenReplica, "_make", None)
    assert replica("qwen-base", cache).folder() == folder
    assert not [path for path in folder.parent.iterdir() if not (path / "config.json").exists()]


@pytest.mark.parametrize("has_same_end", [False, True])
def test_different_texts_get_different_embeddings(folder: Path, has_same_end: bool) -> None:
    """Behind a long common ending, too: the state of the last token has seen the text."""
    prompt = Prompt(
        query='{text}". Use one word to represent the query in a retrieval task.'
        if has_same_end
        else "{text}"
    )
    model = BiEncoder(backbone=load_backbone(str(folder), dtype=torch.float32), pooling=LastToken())
    with torch.inference_mode():
        embeddings = model(pack(rows(load_tokenizer(str(folder)), prompt)))
    cosines = embeddings @ embeddings.T - 2 * torch.eye(len(QUERIES))
    assert cosines.max() < 0.9999
    assert cosines.median() < 0.95


@pytest.mark.parametrize("name", ["qwen-r1", "qwen-vl"])
def test_a_trained_backbone_is_saved_whole_and_loads_again(
    cache: Path, tmp_path: Path, name: str
) -> None:
    folder, saved = str(replica(name, cache).folder()), tmp_path / "saved"
    model = BiEncoder(backbone=load_backbone(folder, dtype=torch.float32), pooling=LastToken())
    save_model(saved, model=model, tokenizer=load_tokenizer(folder), contract={})
    again = load_backbone(str(saved), dtype=torch.float32)
    assert again.state_dict().keys() == model.backbone.state_dict().keys()
    for key, weight in model.backbone.state_dict().items():
        assert torch.equal(weight, again.state_dict()[key]), key
    for text in QUERIES:
        ids = load_tokenizer(str(saved)).encode(text)
        assert ids == load_tokenizer(folder).encode(text)
        assert ids == AutoTokenizer.from_pretrained(saved).encode(text)


def test_a_vision_language_checkpoint_of_newer_names_is_never_random(
    vl: Path, tmp_path: Path
) -> None:
    """transformers 5.17 maps only published names onto the backbone, earlier versions these too."""
    newer = Path(shutil.copytree(vl, tmp_path / "newer"))
    weights = load_file(vl / "model.safetensors")
    for name in [name for name in weights if name.startswith("visual.")]:
        weights[f"model.{name}"] = weights.pop(name)
    save_file(weights, newer / "model.safetensors", metadata={"format": "pt"})
    if Version(transformers.__version__) < Version("5.17"):
        found = load_backbone(str(newer), dtype=torch.float32).state_dict()
        expected = load_backbone(str(vl), dtype=torch.float32).state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
        return
    with pytest.raises(UserError, match=r"missing \['visual\."):
        load_backbone(str(newer), dtype=torch.float32)


@pytest.fixture(scope="module")
def vl(cache: Path) -> Path:
    return replica("qwen-vl", cache).folder()


def test_text_through_the_language_model_is_a_text_only_call_of_the_whole(vl: Path) -> None:
    """Packed, through our attention, against transformers one text at a time; fp32, so 1e-4."""
    texts = rows(load_tokenizer(str(vl)), Prompt())
    whole = Qwen2_5_VLModel.from_pretrained(vl, dtype=torch.float32).eval()
    ours = BiEncoder(backbone=load_backbone(str(vl), dtype=torch.float32), pooling=LastToken())
    with torch.inference_mode():
        packed = ours.token_states(pack(texts))
        alone = torch.cat([ours.token_states(pack([text])) for text in texts])
        expected = torch.cat(
            [whole(torch.from_numpy(text.ids)[None]).last_hidden_state[0] for text in texts]
        )
    assert expected.std() > 0.5
    torch.testing.assert_close(packed, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-4)


@pytest.fixture
def adapted(vl: Path) -> BiEncoder:
    lora = yaml.safe_load((MODELS / "adapter" / "lora.yaml").read_text(encoding="utf-8"))
    lora.pop("_target_")
    return BiEncoder(
        backbone=LoRA(**lora)(load_backbone(str(vl), dtype=torch.float32)), pooling=LastToken()
    )


def test_lora_touches_the_language_model_only(adapted: BiEncoder, vl: Path, tmp_path: Path) -> None:
    trained = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * 7 * 2  # layers, projections, A and B
    assert all(".language_model." in name and "visual" not in name for name in trained)
    assert [name for name, _ in adapted.named_parameters() if ".visual." in name]
    saved = tmp_path / "saved"
    save_model(saved, model=adapted, tokenizer=load_tokenizer(str(vl)), contract={})
    keys = load_file(saved / "adapter_model.safetensors")
    assert len(keys) == len(trained)
    assert not [key for key in keys if "visual" in key]
