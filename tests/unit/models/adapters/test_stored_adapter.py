"""Adapters of any origin give the hidden states that peft gives, or are refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    HRAConfig,
    IA3Config,
    LNTuningConfig,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    PeftModel,
)
from safetensors.torch import load_file
from transformers import AutoModel

from helpers.adapters import (
    adapter_folder,
    base_folder,
    change_weights,
    loaded,
    rename_weights,
    states_of,
    states_of_peft,
    vision_folder,
)
from quarry.errors import MissingPathError, UserError
from quarry.models.adapters.adapter_config import KINDS
from quarry.models.adapters.fast_lora import use_fast_lora
from quarry.models.adapters.lora import check_adapter_file, merge_adapter
from quarry.models.adapters.stored_adapter import (
    check_adapter_fits,
    read_adapter,
    stored_part,
)
from quarry.models.backbones.huggingface import load_config
from quarry.models.backbones.text_model import base_model
from quarry.models.memory import outline

TOLERANCE = 1e-6
"""Of hidden states of about 1, in fp32: the same operations, perhaps in another order."""

ADAPTERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "head of a classifier": {"head": "SEQ_CLS"},
    "no task": {"head": "CAUSAL_LM", "task_type": None},
    "backbone": {"head": "FEATURE_EXTRACTION"},
    "all linear layers": {"target_modules": "all-linear"},
    "pattern": {"target_modules": r"model\.layers\.\d+\.self_attn\.[qv]_proj"},
    "pattern with head": {"target_modules": r"(model\.layers\.1\..*(k|up)_proj)|lm_head"},
    "full names": {"target_modules": ["model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj"]},
    "one layer": {"layers_to_transform": [1]},
    "one layer of a name": {"layers_to_transform": 1, "layers_pattern": "layers"},
    "excluded": {"exclude_modules": r"model\.layers\.0\..*"},
    "lm_head": {"target_modules": ["q_proj", "lm_head"]},
    "embeddings": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "LoRA of embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
    "saved norms": {"modules_to_save": ["norm"]},
    "DoRA": {"use_dora": True},
    "rsLoRA": {"use_rslora": True},
    "dropout": {"lora_dropout": 0.5},
    "ranks": {"rank_pattern": {"model.layers.0.self_attn.q_proj": 2, "down_proj": 6}},
    "alphas": {"alpha_pattern": {r"^model\.layers\.1\..*q_proj": 32}},
    "ranks and alphas": {
        "rank_pattern": {r"^model.layers.0.self_attn.q_proj": 3},
        "alpha_pattern": {"model.layers.0.self_attn.q_proj": 1},
        "use_rslora": True,
    },
    "bias of LoRA": {"lora_bias": True, "target_modules": ["q_proj", "v_proj"]},
    "biases": {"bias": "all"},
    "PiSSA": {"init_lora_weights": "pissa"},
    "some tokens": {"trainable_token_indices": [5, 7]},
    "some tokens by name": {"trainable_token_indices": {"model.embed_tokens": [5, 9]}},
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    kinds = {name: base_folder(folder / name, name) for name in ("qwen2", "llama", "gpt_neox")}
    return kinds | {"vision": vision_folder(folder / "vision")}


def assert_same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ADAPTERS)
def test_hidden_states_are_those_of_peft(name: str, bases: dict[str, Path], tmp_path: Path) -> None:
    settings = dict(ADAPTERS[name])
    head, base = settings.pop("head", "CAUSAL_LM"), bases["qwen2"]
    config = None
    if "task_type" in settings:
        config = LoraConfig(r=4, target_modules=["q_proj"], task_type=None)
    adapter = adapter_folder(tmp_path / "adapter", base, head=head, config=config, **settings)
    adapted = loaded(base, adapter)
    theirs = states_of_peft(base, adapter, head=head)
    assert_same(states_of(adapted), theirs)
    plain = AutoModel.from_pretrained(base)
    assert (states_of(plain) - theirs).abs().max() > 0.01  # the adapter does something
    check_adapter_fits(read_adapter(str(adapter)), outline(load_config(str(base))))

    # saved again, after a step of training
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data.mul_(1.1)
    adapted.save_pretrained(tmp_path / "again")
    check_adapter_file(tmp_path / "again", adapted)
    again = states_of(loaded(base, tmp_path / "again"))
    assert_same(again, states_of(adapted))
    assert_same(states_of_peft(base, tmp_path / "again", head="FEATURE_EXTRACTION"), again)


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "vision"])
def test_other_architectures(name: str, bases: dict[str, Path], tmp_path: Path) -> None:
    head = "VISION" if name == "vision" else "CAUSAL_LM"
    targets = {"gpt_neox": ["query_key_value", "dense_4h_to_h"]}.get(name, ["q_proj", "down_proj"])
    if name == "vision":
        targets = r"model\.language_model\.layers\.\d\.mlp\.(up|down)_proj"
    adapter = adapter_folder(tmp_path, bases[name], head=head, target_modules=targets)
    assert_same(
        states_of(loaded(bases[name], adapter)), states_of_peft(bases[name], adapter, head=head)
    )


def test_names_of_older_vision_language_models(bases: dict[str, Path], tmp_path: Path) -> None:
    base = bases["vision"]
    pattern = r"model\.language_model\.layers\.\d\.mlp\.(up|down)_proj"
    new = adapter_folder(tmp_path / "new", base, head="VISION", target_modules=pattern)
    expected = states_of(loaded(base, new))
    rename_weights(new, "model.model.language_model.layers", "model.model.layers")
    file = new / "adapter_config.json"
    file.write_text(file.read_text().replace(r"model\\.language_model", "model"))
    assert_same(states_of(loaded(base, new)), expected)


TARGETS = ["q_proj", "down_proj"]
OTHER_KINDS = {
    "LOHA": LoHaConfig(r=4, target_modules=TARGETS, task_type="CAUSAL_LM"),
    "LOKR": LoKrConfig(r=4, target_modules=r"model\.layers\..*q_proj", task_type="CAUSAL_LM"),
    "IA3": IA3Config(
        target_modules=["model.layers.0.self_attn.k_proj", "model.layers.0.mlp.down_proj"],
        feedforward_modules=["model.layers.0.mlp.down_proj"],
        task_type="CAUSAL_LM",
    ),
    "OFT": OFTConfig(oft_block_size=4, target_modules=TARGETS, task_type="CAUSAL_LM"),
    "HRA": HRAConfig(r=4, target_modules=TARGETS, task_type="CAUSAL_LM"),
    "LN_TUNING": LNTuningConfig(target_modules=["input_layernorm"], task_type="CAUSAL_LM"),
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_other_kinds_of_adapters(kind: str, bases: dict[str, Path], tmp_path: Path) -> None:
    assert {*KINDS} == {"LORA", *OTHER_KINDS}
    base = bases["llama"]
    adapter = adapter_folder(tmp_path / "adapter", base, config=OTHER_KINDS[kind])
    adapted = loaded(base, adapter)
    theirs = states_of_peft(base, adapter)
    assert_same(states_of(adapted), theirs)
    assert (states_of(AutoModel.from_pretrained(base)) - theirs).abs().max() > 0.01
    check_adapter_fits(read_adapter(str(adapter)), outline(load_config(str(base))))
    adapted.save_pretrained(tmp_path / "again")
    check_adapter_file(tmp_path / "again", adapted)
    assert_same(states_of(loaded(base, tmp_path / "again")), theirs)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("rslora", [False, True])
def test_the_fast_path_is_taken(
    dropout: float, rslora: bool, bases: dict[str, Path], tmp_path: Path
) -> None:
    base = bases["qwen2"]
    adapter = adapter_folder(
        tmp_path, base, lora_dropout=dropout, use_rslora=rslora,
        target_modules=["q_proj", "lm_head"],
        rank_pattern={"model.layers.0.self_attn.q_proj": 2},
    )  # fmt: skip
    adapted = loaded(base, adapter)
    summary = use_fast_lora(adapted)
    assert (summary.num_fast, summary.reasons) == (2, {})
    # fp32: base and update are added in another order
    torch.testing.assert_close(states_of(adapted), states_of_peft(base, adapter), atol=1e-5, rtol=0)


def test_a_dora_keeps_peft_s_path(bases: dict[str, Path], tmp_path: Path) -> None:
    adapter = adapter_folder(tmp_path, bases["qwen2"], use_dora=True)
    adapted = loaded(bases["qwen2"], adapter)
    summary = use_fast_lora(adapted)
    assert summary.num_fast == 0
    assert_same(states_of(adapted), states_of_peft(bases["qwen2"], adapter))


def test_merged_it_is_the_same(bases: dict[str, Path], tmp_path: Path) -> None:
    adapter = adapter_folder(tmp_path, bases["qwen2"], modules_to_save=["embed_tokens"])
    merged = merge_adapter(loaded(bases["qwen2"], adapter))
    assert merged is base_model(merged)
    # fp32: the update is added to the weights first
    torch.testing.assert_close(
        states_of(merged), states_of_peft(bases["qwen2"], adapter), atol=1e-5, rtol=0
    )


def test_weights_of_heads_are_counted_and_left_out(
    bases: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    adapter = adapter_folder(tmp_path, bases["qwen2"], target_modules=["q_proj", "lm_head"])
    with caplog.at_level(logging.INFO):
        adapted = loaded(bases["qwen2"], adapter)
    assert "3 of 7 weights belong to heads" in caplog.text
    assert "lm_head.lora_A" in caplog.text
    trained = [p for p in adapted.parameters() if p.requires_grad]
    part = stored_part(read_adapter(str(adapter)), outline(load_config(str(bases["qwen2"]))))
    assert part.num_parameters == sum(p.numel() for p in trained) == 2 * 4 * (32 + 32)
    assert (part.num_inputs, part.num_low_rank) == (2 * 32, 2 * 4)


def test_embeddings_that_only_the_file_knows_of_count(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    """peft saves them beside an adapter whose base had tokens added."""
    base = bases["qwen2"]
    adapter = adapter_folder(tmp_path / "adapter", base)
    matrix = torch.randn(128, 32)
    change_weights(adapter, {"base_model.model.model.embed_tokens.weight": matrix})
    adapted = loaded(base, adapter)
    assert torch.equal(base_model(adapted).get_input_embeddings()(torch.arange(128)), matrix)
    assert_same(states_of(adapted), states_of_peft(base, adapter))
    adapted.save_pretrained(tmp_path / "again")
    assert_same(states_of(loaded(base, tmp_path / "again")), states_of(adapted))


def test_embeddings_with_added_tokens_are_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    adapter = adapter_folder(tmp_path / "adapter", bases["qwen2"])
    change_weights(adapter, {"base_model.model.model.embed_tokens.weight": torch.zeros(130, 32)})
    with pytest.raises(UserError, match=r"embed_tokens.*\[130, 32\] \(expected: \[128, 32\]\)"):
        loaded(bases["qwen2"], adapter)


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "wider": ({"hidden_size": 48, "head_dim": 12}, r"q_proj.*\[4, 32\] \(expected: \[4, 48\]\)"),
    "deeper": ({"num_hidden_layers": 3}, r"missing: .*layers\.2\.mlp\.down_proj.*and 1 more"),
    "shallower": ({"num_hidden_layers": 1}, r"4 of 8 weights belong to no layer.*layers\.1\."),
    "other names": ({"model_type": "gpt_neox"}, r"8 of 8 weights belong to no layer of GPTNeoX"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_an_adapter_of_another_base_is_refused_by_its_header(
    name: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    adapter = adapter_folder(tmp_path / "adapter", bases["qwen2"])
    change, message = REFUSALS[name]
    other = base_folder(tmp_path / "other", **change)
    backbone = outline(load_config(str(other)))
    with pytest.raises(UserError, match=message) as info:
        check_adapter_fits(read_adapter(str(adapter)), backbone)
    assert str(adapter / "adapter_model.safetensors") in str(info.value)
    assert "expected: " in str(info.value)
    assert "model.base_path=DIR" in str(info.value)
    with pytest.raises(UserError, match=message):
        loaded(other, adapter)


Q_PROJ = "base_model.model.model.layers.1.self_attn.q_proj"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({f"{Q_PROJ}.lora_B.weight": None}, r"missing: .*layers\.1\.self_attn\.q_proj\.lora_B"),
        (
            {f"{Q_PROJ}.lora_B.weight": None, f"{Q_PROJ}.lora_A.weight": None},
            r"missing: .*layers\.1\.self_attn\.q_proj\.lora_A",
        ),
        (
            {f"{Q_PROJ[:-6]}k_proj.lora_A.weight": torch.zeros(4, 32)},
            r"left over: .*model\.layers\.1\.self_attn\.k_proj\.lora_A",
        ),
        ({f"{Q_PROJ}.lora_A.weight": torch.zeros(3, 32)}, r"\[3, 32\] \(expected: \[4, 32\]\)"),
        ({"q_proj.lora_A.weight": torch.zeros(4, 32)}, r"1 of 9 weights belong to no layer"),
        ({"base_model.model.model.norm.weight": torch.zeros(32)}, r"left over: .*model\.norm"),
    ],
)
def test_missing_and_leftover_weights_are_named(
    change: dict[str, torch.Tensor | None], message: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    adapter = adapter_folder(tmp_path, bases["qwen2"])
    change_weights(adapter, change)
    with pytest.raises(UserError, match=message):
        loaded(bases["qwen2"], adapter)


def test_an_adapter_of_heads_alone_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    adapter = adapter_folder(tmp_path, bases["qwen2"], target_modules=["lm_head"])
    with pytest.raises(UserError, match=r"no weight is left.*lm_head\.lora_A"):
        loaded(bases["qwen2"], adapter)


def test_damaged_and_missing_files(bases: dict[str, Path], tmp_path: Path) -> None:
    adapter = adapter_folder(tmp_path, bases["qwen2"])
    file = adapter / "adapter_model.safetensors"
    file.write_bytes(b"cut off")
    with pytest.raises(UserError, match=r"adapter_model\.safetensors: cannot be read"):
        read_adapter(str(adapter))
    file.unlink()
    with pytest.raises(MissingPathError, match=r"neither adapter_model\.safetensors nor"):
        read_adapter(str(adapter))
    with pytest.raises(MissingPathError, match=r"no adapter_config\.json"):
        read_adapter(str(bases["qwen2"]))


def test_settings_that_peft_cannot_read(bases: dict[str, Path], tmp_path: Path) -> None:
    adapter = adapter_folder(tmp_path, bases["qwen2"])
    file = adapter / "adapter_config.json"
    text = file.read_text()
    for old, new in (
        ('"CAUSAL_LM"', '"POETRY"'),
        ('"rank_pattern": {}', '"rank_pattern": {"(":1}'),
    ):
        file.write_text(text.replace(old, new))
        with pytest.raises(UserError, match=r"adapter_config\.json: these settings"):
            loaded(bases["qwen2"], adapter)


def test_a_saved_layer_that_peft_cannot_name_alone_is_refused(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    """It looks for ends of names: of a backbone, "norm" is the last one's and all others'."""
    adapter = adapter_folder(tmp_path, bases["qwen2"], modules_to_save=["model.norm"])
    with pytest.raises(UserError, match=r"modules_to_save=\['model\.norm'\].*input_layernorm"):
        loaded(bases["qwen2"], adapter)


def test_the_saved_adapter_names_layers_of_the_backbone(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    base = bases["qwen2"]
    adapter = adapter_folder(tmp_path / "adapter", base)
    loaded(base, adapter).save_pretrained(tmp_path / "again")
    names = load_file(tmp_path / "again" / "adapter_model.safetensors")
    assert all(name.startswith("base_model.model.layers.") for name in names)
    assert isinstance(
        PeftModel.from_pretrained(AutoModel.from_pretrained(base), str(tmp_path / "again")),
        PeftModel,
    )
