"""Time sentence-transformers' `encode` from texts, in bf16 on a GPU.

python bench/encode_sentence_transformers.py --model FOLDER --corpus FILE --embeddings FILE.npy

With --prompt it reads the rendered texts of `encode_prefix.py`, with the same tokens.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

from measuring import read_documents, timed_passes
from quarry.data.prompts import joined_text
from quarry.types import Document
from result_line import hand_over, num_matrix_weights
from templates import TEMPLATES, template_parts


def load_model(folder: Path) -> SentenceTransformer:
    """Load a sentence-transformers folder, or a backbone with normalized last-token pooling."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    settings: dict[str, Any] = {"dtype": dtype, "attn_implementation": "sdpa"}
    if (folder / "modules.json").exists():
        return SentenceTransformer(str(folder), device=device, model_kwargs=settings)
    backbone = Transformer(
        str(folder),
        model_kwargs=settings,
        # else it renders each text with the tokenizer's chat template
        modality_config={"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        module_output_name="token_embeddings",
    )
    pooling = Pooling(backbone.get_embedding_dimension(), pooling_mode="lasttoken")
    return SentenceTransformer(modules=[backbone, pooling, Normalize()], device=device)


def tokens_of(model: SentenceTransformer, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of the texts, without padding."""
    rows: list[list[int]] = model.tokenizer(
        list(texts), truncation=True, max_length=model.max_seq_length
    )["input_ids"]
    return rows


def rendered(
    documents: Sequence[Document], *, prompt: str, folder: Path, model: SentenceTransformer
) -> list[str]:
    """Return documents rendered with a prompt; exit if their tokens differ from ours."""
    tokenizer = template_parts(prompt, folder)[0].tokenizer
    frame = tokenizer.frames["document"]
    texts = [frame.render(frame.text_of(document)) for document in documents]
    ours = [row.ids.tolist() for row in tokenizer(documents, "document")]
    if tokens_of(model, texts) != ours:
        sys.exit(f"--prompt={prompt}: a rendered string does not give the tokens that we encode.")
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--embeddings", type=Path, required=True, help="see measuring.timed_passes")
    parser.add_argument("--num-texts", type=int)
    parser.add_argument("--num-passes", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--prompt", choices=TEMPLATES, help="bare texts without it")
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    documents = read_documents(arguments.corpus, limit=arguments.num_texts)
    texts = [joined_text(document) for document in documents]
    if arguments.prompt is not None:
        texts = rendered(documents, prompt=arguments.prompt, folder=arguments.model, model=model)

    def encode(num_texts: int) -> NDArray[np.float32]:
        embeddings: NDArray[np.float32] = model.encode(
            texts[:num_texts], batch_size=arguments.batch_size, show_progress_bar=False
        )
        return embeddings

    result = timed_passes(
        encode,
        num_texts=len(texts),
        num_tokens=sum(map(len, tokens_of(model, texts))),
        num_passes=arguments.num_passes,
        compared_with=arguments.embeddings,
    )
    hand_over(result | {"flop_per_token": 2 * num_matrix_weights(arguments.model)})


if __name__ == "__main__":
    main()
