"""Export qwen-tiny for sentence-transformers, without a prompt and with mean pooling.

python bench/qwen_tiny.py FOLDER
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from composed import composed_parts
from quarry.models.building import build_bi_encoder
from quarry.retrieval.export.export_folder import export_sentence_transformers
from result_line import hand_over


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    _, parts = composed_parts(["model=qwen-tiny"])
    export = export_sentence_transformers(
        arguments.folder,
        model=build_bi_encoder(parts.spec, is_trained=False),
        tokenizer=parts.tokenizer,
        dtype=torch.float32,
    )
    hand_over({"smallest_cosine": min(export.cosines)})


if __name__ == "__main__":
    main()
