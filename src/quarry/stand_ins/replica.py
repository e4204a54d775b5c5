"""Create replicas: small random models with the architecture and file layout of large ones.

They are written to the cache in the form of the large model's hub files, in bfloat16 and with its
language-model head, so that every command can be tried without the large model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import (
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from quarry.runtime.files import write_json
from quarry.stand_ins.made_folder import made_once
from quarry.stand_ins.replica_tokenizer import (
    Dialect,
    Vocabulary,
    published_vocabulary,
    stand_in_vocabulary,
    write_tokenizer,
)

FORMAT = 1
"""Part of the folder's name: raise it whenever the content of replicas changes."""

ROWS = 128
"""The embedding's rows are a multiple of this, and more than there are tokens, as on the hub."""

GAIN = 2.0
"""Weights have a standard deviation of GAIN / sqrt(inputs). Attention is then sharp and outweighs
the token itself, so that texts with the same ending still end in different states."""


class QwenReplica:
    """Recipe for the folder of a small Qwen2.5 text model; `folder()` creates it on first use.

    Args:
        dialect: special tokens, end token and chat template.
        tokenizer_path: folder or hub id of a Qwen2.5 tokenizer to derive the replica's from; null:
            a stand-in, trained on `texts`.
        texts: returns the texts for the stand-in.
        vocab_size: size of the stand-in's vocabulary, without special tokens.
        cache_dir: parent of the folder, whose name is a hash of recipe and tokenizer.
        hidden_size, intermediate_size, num_layers, num_heads, num_key_value_heads: the shape.
        rope_theta, max_position_embeddings: those of the large model.
        has_tied_embeddings: the language-model head shares the token embedding's weight.
        seed: seed of the random weights.
    """

    name = "qwen-replica"

    def __init__(
        self,
        *,
        dialect: Dialect,
        tokenizer_path: str | None,
        texts: Callable[[], Sequence[str]],
        vocab_size: int,
        cache_dir: str | Path,
        hidden_size: int,
        intermediate_size: int,
        num_layers: int,
        num_heads: int,
        num_key_value_heads: int,
        rope_theta: float,
        max_position_embeddings: int,
        has_tied_embeddings: bool,
        seed: int,
    ) -> None:
        self.dialect = dialect
        self.tokenizer_path = tokenizer_path
        self.texts = texts
        self.vocab_size = vocab_size
        self.cache_dir = Path(cache_dir).expanduser()
        self.seed = seed
        self.shape = {
            "hidden_size": hidden_size,
            "intermediate_size": intermediate_size,
            "num_hidden_layers": num_layers,
            "num_attention_heads": num_heads,
            "num_key_value_heads": num_key_value_heads,
            "max_position_embeddings": max_position_embeddings,
            "rope_theta": float(rope_theta),
            "tie_word_embeddings": has_tied_embeddings,
        }

    def folder(self) -> Path:
        """Return the folder with config, weights and tokenizer; create it if it does not exist."""
        return made_once(self._target, self._make)

    @cached_property
    def _target(self) -> Path:
        vocabulary = self._vocabulary
        settings = self.dialect.settings(vocabulary.chat_template)
        recipe = [FORMAT, self.name, self.seed, GAIN, settings, self._config(vocabulary)]
        content = json.dumps([recipe, vocabulary.description], sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()
        return self.cache_dir / "models" / f"{self.name}-{digest[:16]}"

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        if self.tokenizer_path is not None:
            return published_vocabulary(self.tokenizer_path)
        return stand_in_vocabulary(self.texts(), vocab_size=self.vocab_size)

    def _make(self, folder: Path) -> None:
        config = self._config(self._vocabulary)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = self._model(config)
            _randomize(model)
        model.to(torch.bfloat16).save_pretrained(folder)
        # with the keys of the hub's file: transformers has renamed some since
        write_json(folder / "config.json", config)
        write_tokenizer(
            folder,
            vocabulary=self._vocabulary,
            dialect=self.dialect,
            max_length=int(self.shape["max_position_embeddings"]),
        )

    def _config(self, vocabulary: Vocabulary) -> dict[str, Any]:
        """Return the content of config.json."""
        ids = {
            name: int(token["id"])
            for name, token in zip(self.dialect.specials(), vocabulary.added_tokens, strict=False)
        }
        end_token = self.dialect.settings(vocabulary.chat_template)["eos_token"]
        return self.shape | {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "torch_dtype": "bfloat16",
            "vocab_size": -(-len(vocabulary) // ROWS) * ROWS,
            "bos_token_id": min(ids.values()),  # also R1's, though its tokenizer has another BOS
            "eos_token_id": ids[end_token],
            "rms_norm_eps": 1e-6,
            "use_cache": True,
            "use_sliding_window": False,
            "sliding_window": self.shape["max_position_embeddings"],
        }

    def _model(self, config: dict[str, Any]) -> PreTrainedModel:
        model: PreTrainedModel = Qwen2ForCausalLM(Qwen2Config.from_dict(config))
        return model


class QwenVLReplica(QwenReplica):
    """Recipe for the folder of a small Qwen2.5-VL: a text model with mrope, and a vision tower."""

    name = "qwen-vl-replica"

    def _config(self, vocabulary: Vocabulary) -> dict[str, Any]:
        base = super()._config(vocabulary)
        first = int(vocabulary.added_tokens[0]["id"])
        names = self.dialect.specials()
        half = self.shape["hidden_size"] // self.shape["num_attention_heads"] // 2
        time, height = half // 4, half * 3 // 8
        return base | {
            "architectures": ["Qwen2_5_VLForConditionalGeneration"],
            "model_type": "qwen2_5_vl",
            "rope_scaling": {
                "type": "mrope",
                "mrope_section": [time, height, half - time - height],
            },
            "image_token_id": first + names.index("<|image_pad|>"),
            "video_token_id": first + names.index("<|video_pad|>"),
            "vision_start_token_id": first + names.index("<|vision_start|>"),
            "vision_end_token_id": first + names.index("<|vision_end|>"),
            "vision_config": {
                "depth": 2,
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_heads": 2,
                "out_hidden_size": self.shape["hidden_size"],
                "fullatt_block_indexes": [1],
                "tokens_per_second": 2,
            },
        }

    def _model(self, config: dict[str, Any]) -> PreTrainedModel:
        model: PreTrainedModel = Qwen2_5_VLForConditionalGeneration(
            Qwen2_5_VLConfig.from_dict(config)
        )
        return model


def _randomize(model: PreTrainedModel) -> None:
    """Draw random values for every matrix and bias; norm weights stay 1."""
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=GAIN * weight[0].numel() ** -0.5)
        elif name.endswith(".bias"):
            torch.nn.init.normal_(weight, std=0.1)
