"""Create the default model: a small Qwen2 with seeded random weights and its own tokenizer.

It is written to the cache as an ordinary Hugging Face folder, so that all other code treats it
like any other model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2Model

from quarry.stand_ins.made_folder import made_once

END_TOKEN = "<|endoftext|>"
FORMAT = 1


class TinyQwen:
    """Recipe for a small Qwen2 model folder; `folder()` creates it in the cache on first use.

    Args:
        texts: returns the texts that the byte-level BPE tokenizer is trained on.
        cache_dir: parent of the folder, whose name is a hash of recipe and texts.
        vocab_size, hidden_size, intermediate_size, num_layers, num_heads: the model's shape.
        embedding_std: standard deviation of the token embeddings. Other weights have 0.02. With
            much larger embeddings, texts that share a rare word are close from the start, and a
            few optimizer steps do not make a rare token's embedding indistinct.
        seed: seed of the random weights.
    """

    def __init__(
        self,
        *,
        texts: Callable[[], Sequence[str]],
        cache_dir: str | Path,
        vocab_size: int,
        hidden_size: int,
        intermediate_size: int,
        num_layers: int,
        num_heads: int,
        embedding_std: float,
        seed: int,
    ) -> None:
        self.texts = texts
        self.cache_dir = Path(cache_dir).expanduser()
        self.vocab_size = vocab_size
        self.embedding_std = embedding_std
        self.seed = seed
        self.config = {
            "hidden_size": hidden_size,
            "intermediate_size": intermediate_size,
            "num_hidden_layers": num_layers,
            "num_attention_heads": num_heads,
            "num_key_value_heads": num_heads,
            "initializer_range": 0.02,
            "max_position_embeddings": 2048,
            "use_cache": False,
            "tie_word_embeddings": True,
        }

    def folder(self) -> Path:
        """Return the folder with config, weights and tokenizer; create it if it does not exist."""
        return made_once(self._target, lambda folder: self._make(folder, self.texts()))

    @cached_property
    def _target(self) -> Path:
        """Path of the folder; cached, since a run needs it some 70 times: a second of hashing."""
        shape = [FORMAT, self.vocab_size, self.embedding_std, self.seed, self.config]
        recipe = json.dumps(shape, sort_keys=True)
        digest = hashlib.sha256(recipe.encode())
        for text in self.texts():
            digest.update(text.encode() + b"\0")
        return self.cache_dir / "models" / f"qwen-tiny-{digest.hexdigest()[:16]}"

    def _make(self, folder: Path, texts: Sequence[str]) -> None:
        tokenizer = train_tokenizer(texts, vocab_size=self.vocab_size)
        tokenizer.save_pretrained(folder)
        end = tokenizer.eos_token_id
        config = Qwen2Config(
            vocab_size=len(tokenizer), bos_token_id=end, eos_token_id=end, pad_token_id=end,
            **self.config,
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = Qwen2Model(config)
            torch.nn.init.normal_(model.embed_tokens.weight, std=self.embedding_std)
            model.save_pretrained(folder)


def train_tokenizer(texts: Sequence[str], *, vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer that splits identifiers into words.

    Camel case is split and everything is lowercased, so that `readLine`, `read_line` and "Read
    line" share tokens; a model this small has no other way to learn that they are alike.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])"), " "),
            normalizers.Replace("_", " "),
            normalizers.Lowercase(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            # indentation and spaces would be half the tokens of code: they are dropped
            pre_tokenizers.Split(Regex(r"\s+"), "removed"),
            pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}+|[^\p{L}\p{N}]+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END_TOKEN, pad_token=END_TOKEN
    )
