"""Where the time of encoding goes: a profile of one pass on one GPU, as a table.

    python bench/profile_encoding.py [--size 7B] [--num-texts 4096] [KEY=VALUE ...]

The pass is one of `encode_ours.py`, from texts, when all is compiled; see kernels.py.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from kernels import profile_table, read_trace
from processes import environment
from random_model import SIZES, write_model
from texts import write_texts

BENCH = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="7B")
    parser.add_argument("--num-texts", type=int, default=4096)
    parser.add_argument("--work", type=Path, help="as in run.py, whose model and texts it takes")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("Error: the profile is one of kernels, and there is no CUDA device here.")
    work = arguments.work or Path(tempfile.mkdtemp(prefix="quarry-bench-"))
    model, texts = work / f"model_{arguments.size}", work / "texts"
    if not (model / "config.json").exists():
        write_model(model, arguments.size)
    if not (texts / "corpus.jsonl").exists():
        num_words = min(151_000, SIZES[arguments.size]["vocab_size"] // 2)
        write_texts(texts, num_examples=1, num_documents=arguments.num_texts, num_words=num_words)
    folder = Path(tempfile.mkdtemp(prefix="profile_", dir=work))
    command = [
        sys.executable, str(BENCH / "encode_ours.py"), "--model", str(model),
        "--corpus", str(texts / "corpus.jsonl"), "--embeddings", str(folder / "embeddings.npy"),
        "--num-texts", str(arguments.num_texts), "--num-passes", "1",
        "--trace", str(folder / "trace.json"), "model.compile=true",
        "evaluation.max_tokens_per_batch=32768", *arguments.overrides,
    ]  # fmt: skip
    ended = subprocess.run(command, check=False, env=environment(), stdin=subprocess.DEVNULL)
    if ended.returncode:
        sys.exit(ended.returncode)
    table = profile_table(read_trace(folder / "trace.json"), num_steps=1, unit="pass")
    print(f"\n{table}")


if __name__ == "__main__":
    main()
