"""Which architectures take packed batches, and what a layer may ask of the attention function."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, Qwen2_5_VLConfig, Qwen2_5_VLModel

from helpers.architectures import tiny_backbone
from helpers.models import tiny_bi_encoder, tiny_qwen
from quarry.errors import UserError
from quarry.models.adapters.lora import LoRA
from quarry.models.attention import (
    PACKED,
    check_packable,
    first_position,
    is_causal_by_design,
    packed_attention,
    use_packed_attention,
)


def tiny_qwen_vl() -> Qwen2_5_VLModel:
    text = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 128,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]},
    }
    vision = {"depth": 1, "hidden_size": 32, "num_heads": 2, "out_hidden_size": 32}
    return Qwen2_5_VLModel(Qwen2_5_VLConfig(text_config=text, vision_config=vision))


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "mamba": ("mamba", {}, "other means than plain attention"),
    "rwkv": ("rwkv", {"attention_hidden_size": 32}, "other means than plain attention"),
    "linear attention": (
        "qwen3_next",
        {"layer_types": ["linear_attention", "full_attention"], "num_experts": 2},
        r"other means than plain attention \(linear_attention\)",
    ),
    "convolutions": (
        "lfm2",
        {"layer_types": ["conv", "full_attention"], "num_key_value_heads": 2},
        r"other means than plain attention \(conv\)",
    ),
    "chunks": (
        "llama4_text",
        {
            "layer_types": ["chunked_attention", "full_attention"],
            "num_key_value_heads": 2,
            "intermediate_size_mlp": 64,
            "num_local_experts": 2,
        },
        r"other means than plain attention \(chunked_attention\)",
    ),
    "neighbours' embeddings": (
        "mobilebert",
        {"embedding_size": 32, "intra_bottleneck_size": 32},
        "other means than plain attention",
    ),
    "own attention": ("bloom", {}, "does not go through transformers' attention interface"),
    "encoder and decoder": (
        "bart",
        {"d_model": 32, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32},
        "an encoder with a decoder beside it",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_architectures_whose_texts_would_reach_each_other_are_refused(name: str) -> None:
    model_type, settings, reason = REFUSED[name]
    backbone = tiny_backbone(model_type, **settings)
    with pytest.raises(UserError, match=rf"^{type(backbone).__name__} cannot take .*{reason}"):
        use_packed_attention(backbone)
    assert backbone.config._attn_implementation != PACKED


@pytest.mark.parametrize("model_type", ["llama", "qwen3", "modernbert", "bert"])
def test_plain_attention_is_accepted(model_type: str) -> None:
    backbone = tiny_backbone(model_type)
    use_packed_attention(backbone)
    assert backbone.config._attn_implementation == PACKED


def test_a_hybrid_without_any_recurrent_layer_is_accepted() -> None:
    settings = {
        "num_key_value_heads": 2,
        "num_local_experts": 2,
        "shared_intermediate_size": 32,
        "mamba_n_heads": 4,
    }
    plain = tiny_backbone("granitemoehybrid", layer_types=["full_attention"] * 2, **settings)
    mixed = tiny_backbone(
        "granitemoehybrid", layer_types=["full_attention", "linear_attention"], **settings
    )
    check_packable(plain)
    with pytest.raises(UserError, match="linear_attention"):
        check_packable(mixed)


def test_an_adapter_changes_neither_answer_nor_message() -> None:
    def adapted(backbone: PreTrainedModel) -> PreTrainedModel:
        return LoRA(r=1, alpha=1, dropout=0.0, target_modules=["o_proj", "in_proj"])(backbone)

    llama = adapted(tiny_backbone("llama"))
    check_packable(llama)
    assert is_causal_by_design(llama)
    with pytest.raises(UserError, match="^MambaModel cannot take packed batches"):
        check_packable(adapted(tiny_backbone("mamba")))


def test_of_a_vision_language_model_the_text_side_counts() -> None:
    model = tiny_qwen_vl()
    for backbone in (model, model.language_model):
        check_packable(backbone)
        assert is_causal_by_design(backbone)
        assert first_position(backbone) == 0


@pytest.mark.parametrize(
    ("model_type", "is_causal"),
    [("llama", True), ("mistral", True), ("bert", False), ("modernbert", False)],
)
def test_direction_by_design(model_type: str, is_causal: bool) -> None:
    assert is_causal_by_design(tiny_backbone(model_type)) == is_causal


def test_bert_as_a_decoder_is_causal() -> None:
    assert is_causal_by_design(tiny_backbone("bert", is_decoder=True))


def test_what_a_saved_config_states_overrules_the_architecture() -> None:
    assert is_causal_by_design(tiny_qwen())
    assert not is_causal_by_design(tiny_bi_encoder(is_causal=False).backbone)
    assert is_causal_by_design(tiny_bi_encoder(is_causal=True).backbone)


def test_positions_begin_after_that_of_padding_in_robertas_family_alone() -> None:
    assert first_position(tiny_backbone("xlm-roberta", pad_token_id=1)) == 2
    assert first_position(tiny_backbone("bert", pad_token_id=1)) == 0
    assert first_position(tiny_backbone("llama", pad_token_id=1)) == 0


def attend(**more: Any) -> Tensor:
    """Two texts, of three tokens and one, in two heads of size 4."""
    query, key, value = torch.randn(3, 1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    settings: dict[str, Any] = {
        "attention_mask": None,
        "cu_seq_lens_q": torch.tensor([0, 3, 4], dtype=torch.int32),
        "max_length_q": 3,
        "is_causal": True,
    }
    out, weights = packed_attention(torch.nn.Identity(), query, key, value, **(settings | more))
    assert weights is None
    return out


def test_the_shape_is_what_transformers_expects() -> None:
    assert attend().shape == (1, 4, 2, 4)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"softcap": 50.0}, r"attention scores \(softcap\)"),
        ({"s_aux": torch.zeros(2)}, r"attention scores \(s_aux\)"),
        ({"position_bias": torch.zeros(1, 2, 4, 4)}, r"attention scores \(position_bias\)"),
        ({"indices": torch.zeros(1)}, r"attention scores \(indices\)"),
        ({"attention_mask": torch.ones(1, 4)}, "an attention mask of its own"),
        ({"cu_seq_lens_q": None}, "where texts begin"),
    ],
)
def test_a_layer_that_needs_another_attention_is_refused(more: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=rf"^Identity cannot take packed batches.*{reason}"):
        attend(**more)


def test_what_changes_no_score_is_ignored() -> None:
    assert torch.equal(attend(softcap=None, deterministic=True, position_ids=None), attend())


@pytest.mark.parametrize("is_causal", [True, False])
def test_a_window_of_one_token_leaves_each_token_to_itself(is_causal: bool) -> None:
    value = torch.randn(3, 1, 2, 4, 4, generator=torch.Generator().manual_seed(0))[2]
    out = attend(sliding_window=1, is_causal=is_causal)
    torch.testing.assert_close(out[0], value[0].transpose(0, 1))


def test_a_window_in_both_directions_is_as_wide_on_either_side() -> None:
    wide, narrow = (
        attend(sliding_window=3, is_causal=False),
        attend(sliding_window=2, is_causal=False),
    )
    everything = attend(is_causal=False)
    torch.testing.assert_close(wide, everything)  # three tokens: two on each side are all
    torch.testing.assert_close(narrow[0, 1], everything[0, 1])  # the middle one has two neighbours
    assert not torch.allclose(narrow[0, 0], everything[0, 0])
    assert not torch.allclose(narrow[0, 2], everything[0, 2])
