"""Small random models in folders of sentence-transformers, as its versions write them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2Model,
    RobertaConfig,
    RobertaModel,
)

WORDS = [
    "the", "a", "quick", "brown", "fox", "is", "not", "an", "animal", "of", "query", "passage",
    "instruct", ":", "?", ".", "x", "y", "z", "Fox", "A",
]  # fmt: skip
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
SHAPE: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.2,  # large: a wrong token or mask must show
}


def word_tokenizer(
    layout: str = "[CLS] $A [SEP]", *, lower_case: bool = True
) -> PreTrainedTokenizerFast:
    """Words by white space, in lower case; special tokens around a text as `layout` says."""
    vocabulary = {
        word: i
        for i, word in enumerate([*SPECIALS, *WORDS, *(w.upper() for w in WORDS if w.isalpha())])
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    if lower_case:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=layout, special_tokens=[(name, vocabulary[name]) for name in SPECIALS]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", eos_token="[SEP]", model_max_length=24,
    )  # fmt: skip


def bert(**more: Any) -> BertModel:
    torch.manual_seed(0)
    return BertModel(BertConfig(**SHAPE, max_position_embeddings=40, **more)).eval()


def roberta() -> RobertaModel:
    torch.manual_seed(0)
    config = RobertaConfig(**SHAPE, max_position_embeddings=40, pad_token_id=0)
    return RobertaModel(config).eval()


def qwen2() -> Qwen2Model:
    torch.manual_seed(0)
    return Qwen2Model(Qwen2Config(**SHAPE, num_key_value_heads=2, use_cache=False)).eval()


def plain_folder(
    folder: Path,
    model: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerFast | None = None,
) -> Path:
    """A Hugging Face folder, with nothing of sentence-transformers."""
    (model or bert()).save_pretrained(folder)
    (tokenizer or word_tokenizer()).save_pretrained(folder)
    return folder


def dense(in_features: int, out_features: int, activation: torch.nn.Module, **more: Any) -> Dense:
    torch.manual_seed(in_features + out_features)
    return Dense(in_features, out_features, activation_function=activation, **more)


def sentence_folder(
    folder: Path,
    *,
    model: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerFast | None = None,
    pooling: Mapping[str, Any] | None = None,
    denses: Sequence[Dense] = (),
    is_normalized: bool = True,
    transformer: Mapping[str, Any] | None = None,
    **more: Any,
) -> Path:
    """A folder as the installed version of sentence-transformers saves it.

    Args:
        pooling: arguments of its Pooling.
        transformer: arguments of its Transformer.
        more: arguments of its SentenceTransformer.
    """
    plain = plain_folder(folder.with_name(f"{folder.name}.plain"), model, tokenizer)
    modules: list[Any] = [
        Transformer(str(plain), **(transformer or {})),
        Pooling(SHAPE["hidden_size"], **(pooling or {"pooling_mode": "mean"})),
        *denses,
    ]
    if is_normalized:
        modules.append(Normalize())
    SentenceTransformer(modules=modules, device="cpu", **more).save(
        str(folder), create_model_card=False
    )
    shutil.rmtree(plain)
    return folder


OLD_FLAGS = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")


def as_version_2(folder: Path, *, mode: str = "mean_tokens", subfolder: str = "") -> Path:
    """The folder as versions 2.x wrote it: flags of poolings, lengths and types of then.

    Args:
        subfolder: of the transformer; earlier ones had "0_Transformer".
    """
    modules = json.loads((folder / "modules.json").read_text())
    for module in modules:
        module["type"] = f"sentence_transformers.models.{module['type'].rpartition('.')[2]}"
    modules[0]["path"] = subfolder
    (folder / "modules.json").write_text(json.dumps(modules))
    flags = {f"pooling_mode_{name}": name == mode for name in OLD_FLAGS}
    config = {"word_embedding_dimension": SHAPE["hidden_size"], **flags}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    settings = {"max_seq_length": 16, "do_lower_case": False}
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings))
    version = {"__version__": {"sentence_transformers": "2.0.0"}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(version))
    if subfolder:
        (folder / subfolder).mkdir()
        for file in [*folder.glob("*.safetensors"), *folder.glob("*.json")]:
            if file.name not in ("modules.json", "config_sentence_transformers.json"):
                file.replace(folder / subfolder / file.name)
    return folder


def edit(file: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None takes a key out."""
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
