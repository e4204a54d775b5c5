"""Time encoding from texts with the model, tokenizer and encoder of `eval.py`.

python bench/encode_ours.py --model FOLDER --corpus FILE --embeddings FILE.npy [KEY=VALUE ...]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.profiler import ProfilerActivity, profile

from composed import composed_parts
from measuring import read_documents, timed_passes
from quarry.models.building import build_bi_encoder
from result_line import hand_over, num_matrix_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--embeddings", type=Path, required=True, help="see measuring.timed_passes")
    parser.add_argument("--num-texts", type=int)
    parser.add_argument("--num-passes", type=int, default=3)
    parser.add_argument("--trace", type=Path, help="of one pass more: what ran on the GPU")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    config, parts = composed_parts(
        ["model=local", f"model.path={arguments.model}", *arguments.overrides]
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = parts.encoder_builder(max_tokens_per_batch=config.evaluation.max_tokens_per_batch)(
        build_bi_encoder(parts.spec, is_trained=False, device=device)
    )
    documents = read_documents(arguments.corpus, limit=arguments.num_texts)

    def encode(num_texts: int) -> NDArray[np.float32]:
        embeddings: NDArray[np.float32] = encoder.encode(documents[:num_texts], "document").numpy()
        return embeddings

    result = timed_passes(
        encode,
        num_texts=len(documents),
        num_tokens=sum(len(ids) for ids in parts.tokenizer(documents, "document")),
        num_passes=arguments.num_passes,
        compared_with=arguments.embeddings,
    )
    if arguments.trace is not None:
        with profile(activities=[ProfilerActivity.CUDA]) as trace:
            encode(len(documents))
            torch.cuda.synchronize()
        trace.export_chrome_trace(str(arguments.trace))
    hand_over(result | {"flop_per_token": 2 * num_matrix_weights(arguments.model)})


if __name__ == "__main__":
    main()
