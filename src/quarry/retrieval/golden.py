"""Eight fixed texts whose embeddings tell whether a saved model is still what it was."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from quarry.data.packing import pack
from quarry.data.tokenization import TextTokenizer, TokenizedText
from quarry.models.bi_encoder import BiEncoder
from quarry.types import Document, Query, Role

MIN_COSINE = 0.9999
"""In float32 the same weights and tokens agree far better than this on any machine."""

_LONG = " ".join(f"Sentence {i} of a text too long to fit: {i * i}, squared." for i in range(500))

GOLDEN: tuple[Query | Document, ...] = (
    Query(query_id="question", text="how do plants turn sunlight into sugar?"),
    Query(query_id="punctuation", text='"(quoted) & bracketed: ...!?"'),
    Query(query_id="script", text="東京の桜はいつ咲きますか"),
    Document(
        document_id="title",
        title="Photosynthesis",
        text="Plants store the energy of light as sugar, and give off oxygen.",
    ),
    Document(
        document_id="code",
        text="def area(radius):\n    # of a circle\n    return 3.14159 * radius ** 2\n",
    ),
    Document(
        document_id="math",
        text=r"If $a^2 + b^2 = c^2$, then $\sqrt{a^2 + b^2} = |c|$; so for a=3, b=4: c=5.",
    ),
    Document(document_id="borders", text="  ...and so on: «naïve» – 100%!)\n\n"),  # noqa: RUF001
    Document(document_id="long", title="Squares", text=_LONG),
)
"""Never to be changed: models that were saved hold vectors of exactly these."""


def role_of(item: Query | Document) -> Role:
    return "query" if isinstance(item, Query) else "document"


def name_of(item: Query | Document) -> str:
    return item.query_id if isinstance(item, Query) else item.document_id


def golden_texts() -> list[dict[str, str]]:
    """The golden texts as plain data, for whoever replays them elsewhere."""
    return [
        {"role": role_of(item), "title": getattr(item, "title", ""), "text": item.text}
        for item in GOLDEN
    ]


def golden_token_ids(tokenizer: TextTokenizer) -> list[list[int]]:
    """The token ids of each golden text."""
    return [text.ids.tolist() for text in _tokenized(tokenizer)]


def golden_embeddings(model: BiEncoder, tokenizer: TextTokenizer) -> Tensor:
    """Embeddings of the golden texts, [8, dim] fp32 on the CPU, one text a batch.

    The model is used in eval mode and left in the mode it was in. Comparable numbers need a model
    in float32.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        with (
            torch.no_grad()
        ):  # weights that ZeRO 3 gathers in inference mode could not be trained on
            rows = [model(pack([text]).to(device)) for text in _tokenized(tokenizer)]
    finally:
        model.train(was_training)
    return torch.cat(rows).float().cpu().clone()


def golden_cosines(embeddings: Tensor, others: Tensor) -> Tensor:
    """The cosine of each golden text's two embeddings, [8] fp64; NaN where one is no number."""
    return cosine_similarity(embeddings.double(), others.double(), dim=-1)


def _tokenized(tokenizer: TextTokenizer) -> list[TokenizedText]:
    return [tokenizer([item], role_of(item))[0] for item in GOLDEN]
