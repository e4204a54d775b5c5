"""Tiny random rerankers of several architectures as folders, and transformers' scores of them."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
)

from quarry.data.pair_tokenization import Pair
from quarry.data.prompts import joined_text
from quarry.types import Document, Query

ENCODERS = ("bert", "xlm-roberta", "distilbert", "electra", "modernbert")
DECODERS = ("qwen2", "llama", "gemma2")
"""Gemma 2 caps its attention scores, and cannot be packed."""

_SHAPE = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,  # large: a wrong mask must show
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
    "tie_word_embeddings": False,
}
_DISTILBERT = {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4}


def pair_tokenizer() -> PreTrainedTokenizerFast:
    """One token a letter; a pair is <cls> A <sep> B <sep>, with types; yes and no are tokens."""
    words = ["<pad>", "<cls>", "<sep>", "<unk>", "yes", "no", *string.ascii_letters, ":", "."]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\s+"), "removed"),
            pre_tokenizers.Split(Regex(r"yes|no|."), "isolated"),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<cls> $A <sep>",
        pair="<cls> $A <sep> $B:1 <sep>:1",
        special_tokens=[("<cls>", 1), ("<sep>", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **{"pad_token": "<pad>", "cls_token": "<cls>", "sep_token": "<sep>", "unk_token": "<unk>"},
        model_max_length=256,
    )


def classifier_folder(folder: Path, model_type: str, *, num_labels: int = 1, **more: Any) -> Path:
    """Save a seeded classifier of pairs."""
    shape = _SHAPE | (_DISTILBERT if model_type == "distilbert" else {})
    config = AutoConfig.for_model(model_type, **(shape | {"num_labels": num_labels} | more))
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    pair_tokenizer().save_pretrained(folder)
    return folder


def language_model_folder(folder: Path, model_type: str = "qwen3", **more: Any) -> Path:
    """Save a seeded language model, whose tokenizer has yes and no."""
    config = AutoConfig.for_model(model_type, **(_SHAPE | more))
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    pair_tokenizer().save_pretrained(folder)
    return folder


def pairs_of(*texts: tuple[str, str]) -> list[Pair]:
    """Make pairs with ids by their number."""
    return [
        (Query(query_id=f"q{i}", text=query), Document(document_id=f"d{i}", text=document))
        for i, (query, document) in enumerate(texts)
    ]


PAIRS = pairs_of(
    ("abc", "defg hij"), ("x", "y"), ("some query", "a longer document. " * 5),
    ("abc", "defg hij"), ("what is love", "love is all"), ("abc", "y"), ("q", ""),
)  # fmt: skip


def padded_logits(folder: Path, pairs: Sequence[Pair], *, has_types: bool = False) -> torch.Tensor:
    """What transformers computes for all pairs as one padded batch: [num_pairs, num_labels]."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = pair_tokenizer()
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if has_types else [])]
    encoded = tokenizer(
        [query.text for query, _ in pairs],
        [joined_text(document) for _, document in pairs],
        padding=True,
        return_tensors="pt",
        return_token_type_ids=True,
    )
    with torch.no_grad():
        logits: torch.Tensor = model(**{name: encoded[name] for name in names}).logits
    return logits
