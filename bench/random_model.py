"""Write a model folder of a Qwen2.5 size with random weights, without a download.

    python bench/random_model.py 7B FOLDER [--tokenizer DIR]

Without --tokenizer, the stand-in's words are w0, w1, ...: a text of n such words has n tokens and
an end token. Speed depends on shapes and lengths, not on the values of the weights.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config, Qwen2Model

from quarry.planning.published_shapes import SIZES as PUBLISHED
from quarry.planning.published_shapes import Shape
from quarry.runtime.files import write_json

END_TOKEN = "<|endoftext|>"
STD = 0.02
NUM_LAYERS_PER_SHARD = 4

SIZES: dict[str, Shape] = PUBLISHED | {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 2048},
}  # fmt: skip
"""Published shapes, and a tiny one for any machine."""

TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges*", "*tokens*.json", "chat_template*")

NUM_SPARE = 421
"""Unused rows at the end of the largest embedding matrix; the end token is before them."""


def write_model(
    folder: Path, size: str, *, tokenizer_folder: Path | None = None, seed: int = 0
) -> None:
    """Write config, tokenizer and bf16 weights, drawn on the GPU where there is one.

    Args:
        tokenizer_folder: folder of a tokenizer to copy; None: the stand-in. The vocabulary grows if
            the tokenizer needs it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shape = SIZES[size]
    end = shape["vocab_size"] - NUM_SPARE
    if tokenizer_folder is not None:
        copy_tokenizer(tokenizer_folder, folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        shape = {**shape, "vocab_size": max(shape["vocab_size"], len(tokenizer))}
        end = tokenizer.eos_token_id
    config = Qwen2Config(
        **shape, max_position_embeddings=32768, rms_norm_eps=1e-6, use_cache=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6}, tie_word_embeddings=False,
        bos_token_id=end, eos_token_id=end, pad_token_id=end, architectures=["Qwen2Model"],
        dtype="bfloat16",
    )  # fmt: skip
    config.save_pretrained(folder)
    if tokenizer_folder is None:
        write_tokenizer(folder, num_words=end)
    write_weights(folder, config, seed=seed)


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy only the tokenizer's files of a model folder."""
    for pattern in TOKENIZER_FILES:
        for file in source.glob(pattern):
            shutil.copyfile(file, folder / file.name)


def write_tokenizer(folder: Path, *, num_words: int) -> None:
    """Write the stand-in, word wN -> id N; its post-processor appends the end token."""
    vocabulary = {f"w{number}": number for number in range(num_words)} | {END_TOKEN: num_words}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="w0"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(
        single=f"$A {END_TOKEN}", special_tokens=[(END_TOKEN, num_words)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END_TOKEN, pad_token=END_TOKEN, model_max_length=512
    )
    # sentence-transformers follows this name; Qwen2's own class would build another pre-tokenizer
    fast._set_processor_class("PreTrainedTokenizerFast")
    fast.save_pretrained(folder)


def write_weights(folder: Path, config: Qwen2Config, *, seed: int) -> None:
    """Write shards of a few layers each, and their index."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(seed)
    with torch.device("meta"):
        state = Qwen2Model(config).state_dict()
    shards: dict[str, list[str]] = {}
    for name in state:
        shards.setdefault(_shard_of(name), []).append(name)
    for file, names in shards.items():
        tensors = {name: _drawn(name, state[name], generator) for name in names}
        save_file(tensors, folder / file, metadata={"format": "pt"})
    num_bytes = 2 * sum(weight.numel() for weight in state.values())
    index: dict[str, Any] = {
        "metadata": {"total_size": num_bytes},
        "weight_map": {name: file for file, names in shards.items() for name in names},
    }
    write_json(folder / "model.safetensors.index.json", index)


def _shard_of(name: str) -> str:
    parts = name.split(".")
    number = 1 + int(parts[1]) // NUM_LAYERS_PER_SHARD if parts[0] == "layers" else 0
    return f"model-{number:05d}.safetensors"


def _drawn(name: str, like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    weight = torch.empty(like.shape, dtype=torch.bfloat16, device=generator.device)
    if name.endswith("norm.weight"):
        return weight.fill_(1).cpu()
    if name.endswith("bias"):
        return weight.zero_().cpu()
    return weight.normal_(std=STD, generator=generator).cpu()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokenizer", type=Path, help="a folder, instead of the stand-in")
    arguments = parser.parse_args()
    write_model(arguments.folder, arguments.size, tokenizer_folder=arguments.tokenizer)


if __name__ == "__main__":
    main()
