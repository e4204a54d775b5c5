"""The README of an exported folder: how to call it, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence

from quarry.data.tokenization import TextTokenizer
from quarry.types import ROLES, Role

_CARD = """\
---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags: [sentence-transformers, sentence-similarity, feature-extraction]
---

# A dense retriever

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{name}"{arguments})
queries = model.encode_query(["what is a dense retriever?"])
documents = model.encode_document(["It ranks documents by their embeddings."])
scores = model.similarity(queries, documents)
```

- `encode_query` and `encode_document` bring prompt and length.
- Queries: {query}.
- Documents: {document}.
- A document with a title is one text: {title}.
- {dim} dimensions, compared by {similarity}.
- {cost}
{code}"""

_CODE = """\
- `trust_remote_code=True` lets `framed_transformer.py` in this folder run: it does what a prompt
  cannot, text after the text (or the text twice), and cuts the text alone.
"""


def model_card(
    *,
    name: str,
    tokenizer: TextTokenizer,
    embedding_dim: int,
    is_normalized: bool,
    has_code: bool,
    dtype: str,
    cosines: Sequence[float],
) -> str:
    """The README of the folder `name`."""
    keeps_space = tokenizer.frames["document"].keeps_empty_title
    title = "title, a space, text" + ("; without a title it begins with the space" * keeps_space)
    cost = (
        f"Weights in {dtype}: over eight fixed texts the cosine to the model in float32 is at "
        f"least {min(cosines):.6f}, {sum(cosines) / len(cosines):.6f} on average."
    )
    return _CARD.format(
        name=name,
        arguments=", trust_remote_code=True" if has_code else "",
        dim=embedding_dim,
        similarity="cosine" if is_normalized else "inner product",
        title=title,
        cost=cost,
        code=_CODE if has_code else "",
        **{role: _description(tokenizer, role) for role in ROLES},
    )


def _description(tokenizer: TextTokenizer, role: Role) -> str:
    """The frame and the length of one role, in words."""
    shown = tokenizer.frames[role].render("TEXT")
    counts, frame = tokenizer.prompt.length_counts, tokenizer.frames[role]
    counted = {"all": "everything", "text": "the text", "turn": f"`{frame.counted}TEXT`"}[counts]
    return f"`{shown!r}`, {counted} cut to {tokenizer.prompt.max_length(role)} tokens"
