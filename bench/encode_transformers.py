"""Time encoding with transformers alone: padded batches in the order of the texts.

python bench/encode_transformers.py --model FOLDER --corpus FILE --embeddings FILE.npy
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize
from transformers import AutoModel, PreTrainedTokenizerFast

from measuring import read_documents, timed_passes
from quarry.data.prompts import joined_text
from result_line import hand_over, num_matrix_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--embeddings", type=Path, required=True, help="see measuring.timed_passes")
    parser.add_argument("--num-texts", type=int)
    parser.add_argument("--num-passes", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=128)
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    tokenizer = PreTrainedTokenizerFast.from_pretrained(arguments.model)
    model = AutoModel.from_pretrained(arguments.model, dtype=dtype, attn_implementation="sdpa")
    model = model.to(device).eval()
    documents = read_documents(arguments.corpus, limit=arguments.num_texts)
    texts = [joined_text(document) for document in documents]

    @torch.inference_mode()
    def embed(batch: list[str]) -> torch.Tensor:
        inputs = tokenizer(batch, padding=True, truncation=True, return_tensors="pt").to(device)
        states = model(**inputs).last_hidden_state
        last = inputs["attention_mask"].sum(dim=1) - 1
        return normalize(states[torch.arange(len(batch), device=device), last].float()).cpu()

    def encode(num_texts: int) -> NDArray[np.float32]:
        starts = range(0, num_texts, arguments.batch_size)
        some = texts[:num_texts]
        batches = [embed(some[start : start + arguments.batch_size]) for start in starts]
        embeddings: NDArray[np.float32] = torch.cat(batches).numpy()
        return embeddings

    result = timed_passes(
        encode,
        num_texts=len(texts),
        num_tokens=sum(map(len, tokenizer(texts, truncation=True)["input_ids"])),
        num_passes=arguments.num_passes,
        compared_with=arguments.embeddings,
    )
    hand_over(result | {"flop_per_token": 2 * num_matrix_weights(arguments.model)})


if __name__ == "__main__":
    main()
