"""Profile one encoding pass on one GPU, as a table of kernels.

    python bench/profile_encoding.py [--size 7B] [--num-texts 4096] [KEY=VALUE ...]

The pass is one of `encode_ours.py`, from texts, after compilation; see kernels.py.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from kernels import profile_table, read_trace
from processes import environment
from profile_inputs import add_arguments, prepared

BENCH = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_arguments(parser)
    parser.add_argument("--num-texts", type=int, default=4096)
    arguments = parser.parse_args()
    inputs = prepared(arguments, num_examples=512, num_documents=arguments.num_texts)
    folder = inputs.folder
    command = [
        sys.executable, str(BENCH / "encode_ours.py"), "--model", str(inputs.model),
        "--corpus", str(inputs.texts / "corpus.jsonl"),
        "--embeddings", str(folder / "embeddings.npy"),
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
