"""Golden texts: a few fixed texts whose vectors are saved with every model (placeholder)."""

from __future__ import annotations

import torch
from torch import Tensor

from quarry.data.packing import pack
from quarry.data.tokenization import TextTokenizer
from quarry.models.bi_encoder import BiEncoder
from quarry.types import Document, Query

GOLDEN = (Query(query_id="a", text="what is love"), Document(document_id="b", text="it is"))


def golden_embeddings(model: BiEncoder, tokenizer: TextTokenizer) -> Tensor:
    rows = []
    with torch.no_grad():
        for item in GOLDEN:
            role = "query" if isinstance(item, Query) else "document"
            rows.append(model.eval()(pack(tokenizer([item], role))))
    return torch.cat(rows)


def golden_token_ids(tokenizer: TextTokenizer) -> list[list[int]]:
    rows = []
    for item in GOLDEN:
        role = "query" if isinstance(item, Query) else "document"
        rows.append(tokenizer([item], role)[0].ids.tolist())
    return rows
