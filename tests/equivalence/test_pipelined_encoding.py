"""Encoding with its threads and windows == a plain loop over the same plan, bit for bit."""

from __future__ import annotations

import random
import string

import pytest
import torch

from helpers.models import letter_tokenizer, tiny_bi_encoder
from quarry.data.packing import pack, plan_batches
from quarry.data.prompts import Prompt
from quarry.data.tokenization import TextTokenizer
from quarry.retrieval.encoder import Encoder, plan_windows
from quarry.types import Document


@pytest.mark.parametrize(
    ("window", "max_tokens"), [(64, 300), (1000, 2000), (16_384, 65), (30, 10**6)]
)
def test_pipelined_equals_a_plain_loop(window: int, max_tokens: int) -> None:
    letters = random.Random(0)
    documents = [
        Document(
            document_id=str(i),
            text="".join(letters.choices(string.ascii_letters, k=letters.randrange(80))),
        )
        for i in range(300)
    ]
    model = tiny_bi_encoder()
    tokenizer = TextTokenizer(
        tokenizer=letter_tokenizer(), prompt=Prompt(document="P:{text}", max_document_length=70)
    )
    plain = torch.empty(len(documents), model.embedding_dim)
    with torch.inference_mode():
        for part in plan_windows(len(documents), largest=window):
            token_ids = tokenizer([documents[i] for i in part], "document")
            lengths = [len(ids) for ids in token_ids]
            for rows in plan_batches(lengths, max_tokens_per_batch=max_tokens):
                plain[torch.from_numpy(part.start + rows)] = model(
                    pack([token_ids[row] for row in rows])
                )
    pipelined = Encoder(
        model=model,
        tokenizer=tokenizer,
        max_tokens_per_batch=max_tokens,
        num_texts_per_window=window,
    )
    assert torch.equal(pipelined.encode(documents, "document"), plain)
    assert torch.equal(pipelined.encode(documents, "document"), plain)
