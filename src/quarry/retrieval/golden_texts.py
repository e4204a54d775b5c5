"""Verify saved models by the embeddings of eight fixed texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from quarry.data.packing import pack
from quarry.data.tokenization import TextTokenizer, TokenizedText
from quarry.errors import UserError
from quarry.models.bi_encoder import BiEncoder
from quarry.types import Document, Query, Role

MIN_COSINE = 0.9999
"""Lower bound in float32, where equal weights and tokens agree far better on any machine."""

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
"""Never to be changed: saved models store the embeddings of exactly these texts."""


def role_of(item: Query | Document) -> Role:
    return "query" if isinstance(item, Query) else "document"


def name_of(item: Query | Document) -> str:
    return item.query_id if isinstance(item, Query) else item.document_id


def golden_texts() -> list[dict[str, str]]:
    """Return the golden texts as plain data, for replaying them elsewhere."""
    return [
        {"role": role_of(item), "title": getattr(item, "title", ""), "text": item.text}
        for item in GOLDEN
    ]


def golden_token_ids(tokenizer: TextTokenizer) -> list[list[int]]:
    """Return the token ids of each golden text."""
    return [text.ids.tolist() for text in _tokenized(tokenizer)]


def golden_embeddings(model: BiEncoder, tokenizer: TextTokenizer) -> Tensor:
    """Return embeddings of the golden texts, [8, dim] fp32 on the CPU, one text a batch.

    The model is used in eval mode, and its mode is restored. Comparable numbers need a model in
    float32.
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
    """Return the cosine of each golden text's two embeddings, [8] fp64; NaN for invalid numbers.

    Raises:
        UserError: the embeddings are of different widths.
    """
    if embeddings.shape[1:] != others.shape[1:]:
        raise UserError(
            f"The stored golden vectors have width {embeddings.shape[-1]}, and the model gives "
            f"{others.shape[-1]}: the folder was changed after it was saved. Fix: restore its files"
        )
    return cosine_similarity(embeddings.double(), others.double(), dim=-1)


def _tokenized(tokenizer: TextTokenizer) -> list[TokenizedText]:
    return [tokenizer([item], role_of(item))[0] for item in GOLDEN]


def check_golden_tokens(
    contract: Mapping[str, Any], tokenizer: TextTokenizer, *, source: str
) -> None:
    """Raise if a tokenizer gives other tokens for the golden texts than the contract records.

    Args:
        tokenizer: with the contract's own prompt.
        source: where the tokenizer is from, for the message.

    Raises:
        UserError: names the first text and token that differ.
    """
    golden = contract.get("golden")
    expected = golden.get("token_ids") if isinstance(golden, dict) else None
    if not isinstance(expected, list) or len(expected) != len(GOLDEN):
        return  # a model without golden texts can be used, but not verified
    for item, was, now in zip(GOLDEN, expected, golden_token_ids(tokenizer), strict=True):
        if was == now:
            continue
        place = next((i for i, (a, b) in enumerate(zip(was, now, strict=False)) if a != b), None)
        where = min(len(was), len(now)) if place is None else place
        raise UserError(
            f"The golden text {name_of(item)!r} is other tokens than when the model was saved: "
            f"from token {where} on {_shown(tokenizer, now, where)} instead of "
            f"{_shown(tokenizer, was, where)} ({len(now)} tokens instead of {len(was)}). The "
            f"tokenizer or the prompt in {source} was changed: restore its files."
        )


def _shown(tokenizer: TextTokenizer, ids: Sequence[int], where: int) -> str:
    part = list(ids[where : where + 5])
    return f"{part} ({tokenizer.tokenizer.decode(part)!r})"


def golden_table(num_tokens: Sequence[int], cosines: Mapping[str, Sequence[float]]) -> str:
    """Return a table as aligned plain text, a row for each golden text.

    Args:
        num_tokens: tokens of each golden text.
        cosines: title of a column -> a value for each golden text.
    """
    header = ["text", "role", "tokens", *cosines]
    rows = [
        [name_of(item), role_of(item), str(length), *(f"{value:.6f}" for value in values)]
        for item, length, *values in zip(GOLDEN, num_tokens, *cosines.values(), strict=True)
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
