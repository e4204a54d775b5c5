"""Write the README of an exported folder: how to call it, and its cost in precision."""

from __future__ import annotations

from collections.abc import Sequence

from quarry.data.tokenization import TextTokenizer
from quarry.types import Document, Query, Role

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
documents = model.encode_document(
    [
{documents}
    ]
)
scores = model.similarity(queries, documents)
```

- `encode_query` and `encode_document` bring prompt and length.
- A document without a title is a string, its text: {untitled}.
- A document with a title is {how}: {titled}.
- A query is a string: {query}.
- {dim} dimensions, compared by {similarity}.
- {cost}
{code}"""

_WITH_CODE = """\
        "A document without a title is given as its text.",
        {"title": "Dense retrieval", "text": "It ranks documents by their embeddings."},"""

_WITHOUT_CODE = """\
        "A document without a title is given as its text.",
        "Dense retrieval" + " " + "It ranks documents by their embeddings.",  # title and text"""

_CODE = """\
- `trust_remote_code=True` lets `framed_transformer.py` in this folder run. It does what a prefix
  cannot: a document's title, outer white space that is removed, text after the text (or the text
  twice), and it cuts the text alone. What it does not understand it refuses.
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
    """Return the README of the folder `name`."""
    cost = (
        f"Weights in {dtype}: over eight fixed texts the cosine to the model in float32 is at "
        f"least {min(cosines):.6f}, {sum(cosines) / len(cosines):.6f} on average."
    )
    titled = Document(document_id="", title="TITLE", text="TEXT")
    return _CARD.format(
        name=name,
        arguments=", trust_remote_code=True" if has_code else "",
        documents=_WITH_CODE if has_code else _WITHOUT_CODE,
        how="a dict of title and text" if has_code else "one string: title, a space, text",
        titled=_fed(tokenizer, titled, "document"),
        untitled=_fed(tokenizer, Document(document_id="", text="TEXT"), "document"),
        query=_fed(tokenizer, Query(query_id="", text="TEXT"), "query"),
        dim=embedding_dim,
        similarity="cosine" if is_normalized else "inner product",
        cost=cost,
        code=_CODE if has_code else "",
    )


def _fed(tokenizer: TextTokenizer, item: Query | Document, role: Role) -> str:
    """Describe the input of the model and its maximal length."""
    counts, frame = tokenizer.prompt.length_counts, tokenizer.frames[role]
    counted = {"all": "everything", "text": "the text", "turn": f"`{frame.counted}TEXT`"}[counts]
    shown = frame.render(frame.text_of(item))
    length = tokenizer.prompt.max_length(role)
    strips = "outer white space removed, " if frame.strip else ""
    return f"`{shown!r}`, {strips}{counted} cut to {length} tokens"
