"""Times sentence-transformers' `encode` from texts, in bf16 on a GPU.

python bench/encode_sentence_transformers.py --model FOLDER --corpus FILE --embeddings FILE.npy
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

from measuring import read_documents, timed_passes
from quarry.data.prompts import joined_text
from result_line import hand_over, num_matrix_weights


def load_model(folder: Path) -> SentenceTransformer:
    """Return a folder of theirs as it is; of a bare backbone the last token's state, normalized."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    settings: dict[str, Any] = {"dtype": dtype, "attn_implementation": "sdpa"}
    if (folder / "modules.json").exists():
        return SentenceTransformer(str(folder), device=device, model_kwargs=settings)
    backbone = Transformer(
        str(folder),
        model_kwargs=settings,
        # else it renders a tokenizer's chat template around each text
        modality_config={"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        module_output_name="token_embeddings",
    )
    pooling = Pooling(backbone.get_embedding_dimension(), pooling_mode="lasttoken")
    return SentenceTransformer(modules=[backbone, pooling, Normalize()], device=device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--embeddings", type=Path, required=True, help="see measuring.timed_passes")
    parser.add_argument("--num-texts", type=int)
    parser.add_argument("--num-passes", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=128)
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    documents = read_documents(arguments.corpus, limit=arguments.num_texts)
    texts = [joined_text(document) for document in documents]

    def encode(num_texts: int) -> NDArray[np.float32]:
        embeddings: NDArray[np.float32] = model.encode(
            texts[:num_texts], batch_size=arguments.batch_size, show_progress_bar=False
        )
        return embeddings

    rows = model.tokenizer(texts, truncation=True, max_length=model.max_seq_length)["input_ids"]
    result = timed_passes(
        encode,
        num_texts=len(texts),
        num_tokens=sum(map(len, rows)),
        num_passes=arguments.num_passes,
        compared_with=arguments.embeddings,
    )
    hand_over(result | {"flop_per_token": 2 * num_matrix_weights(arguments.model)})


if __name__ == "__main__":
    main()
