"""Tiny random models and a tokenizer whose ids can be told by hand, built in milliseconds."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from torch import nn
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2Model

from quarry.models.bi_encoder import BiEncoder
from quarry.models.pooling.base import Pooling
from quarry.models.pooling.mean import Mean
from quarry.models.projections import Dense, Projection


def tiny_qwen(*, dtype: torch.dtype = torch.float32, **more: object) -> Qwen2Model:
    """A seeded two-layer Qwen2 with grouped-query attention and 128 tokens."""
    torch.manual_seed(0)
    settings: dict[str, object] = {
        "vocab_size": 128,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,  # large: a wrong mask must show
        "use_cache": False,
    }
    return Qwen2Model(Qwen2Config(**(settings | more))).to(dtype).eval()


def tiny_bi_encoder(
    *,
    pooling: Pooling | None = None,
    is_causal: bool = True,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> BiEncoder:
    backbone = tiny_qwen(dtype=dtype).to(device)
    return BiEncoder(backbone=backbone, pooling=pooling or Mean(), is_causal=is_causal).eval()


def random_projections(*, in_features: int = 32, out_features: int = 16) -> nn.Sequential:
    """Two seeded layers after a pooling: one with bias and residual, one without."""
    common: dict[str, Any] = {"in_features": in_features, "weights": Path("none")}
    torch.manual_seed(1)
    return nn.Sequential(
        Projection(
            Dense(
                **common, out_features=in_features, bias=True, activation="Tanh", use_residual=True
            )
        ),
        Projection(
            Dense(
                **common, out_features=out_features, bias=False, activation="Identity",
                use_residual=False,
            )
        ),
    )  # fmt: skip


EOS, BOS, UNKNOWN = 0, 1, 2


def letter_ids(text: str) -> list[int]:
    """What `letter_tokenizer` makes of a text: a is 3, z is 28; then A, ..., Z, the colon (55)."""
    symbols = string.ascii_letters + ":"
    return [3 + symbols.index(symbol) for symbol in text if symbol != " "]


def letter_tokenizer(*, has_bos: bool = False, has_eos: bool = True) -> PreTrainedTokenizerFast:
    """One token a letter, white space dropped; with `has_bos`, texts get a leading <bos>."""
    symbols = ["<eos>", "<bos>", "<unk>", *string.ascii_letters, ":"]
    tokenizer = Tokenizer(
        WordLevel({symbol: i for i, symbol in enumerate(symbols)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\s+"), "removed"),
            pre_tokenizers.Split(Regex("."), "isolated"),
        ]
    )
    if has_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", BOS)]
        )
    specials = {"bos_token": "<bos>", "unk_token": "<unk>"}
    if has_eos:
        specials |= {"eos_token": "<eos>", "pad_token": "<eos>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **specials)


def tiny_folder(folder: Path) -> Path:
    """`tiny_qwen` and `letter_tokenizer` as a Hugging Face folder."""
    tiny_qwen().save_pretrained(folder)
    letter_tokenizer().save_pretrained(folder)
    return folder
