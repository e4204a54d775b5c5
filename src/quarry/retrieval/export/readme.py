"""Write the README of an exported folder: how to call it, its contract, data, results, license."""

from __future__ import annotations

from collections.abc import Sequence

from quarry.data.tokenization import TextTokenizer
from quarry.retrieval.export.card_facts import CardFacts
from quarry.retrieval.export.card_sections import contract_lines, fed, front_matter, sections
from quarry.retrieval.export.tokenizer import max_length
from quarry.types import Document

_CARD = """\
{header}
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
{contract}
- {dim} dimensions, compared by {similarity}.
- {cost}
{code}
{others}
{sections}"""

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

_QUARRY = """\
With Quarry, which takes titles as they are:

```python
import quarry

retriever = quarry.load("{name}")
queries = retriever.encode_queries(["what is a dense retriever?"])
documents = retriever.encode_documents(
    [
        "A document without a title is given as its text.",
        quarry.Document(
            document_id="1",
            title="Dense retrieval",
            text="It ranks documents by their embeddings.",
        ),
    ]
)
scores = queries @ documents.T
```
"""

_TRANSFORMERS = """\
With transformers alone:

```python
import torch
from transformers import AutoModel, AutoProcessor

tokenizer = AutoProcessor.from_pretrained("{name}")
model = AutoModel.from_pretrained("{name}").eval()


def encode(texts, prompt, max_length):
    batch = tokenizer(
        [prompt + text for text in texts],
        padding=True, truncation=True, max_length=max_length, return_tensors="pt",
    )
    mask = batch["attention_mask"]
    with torch.no_grad():
        states = model(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state.float()
    {pooled}
    return {returned}


queries = encode(["what is a dense retriever?"], {query!r}, {query_length})
documents = encode(
    [
        "A document without a title is given as its text.",
        "Dense retrieval" + " " + "It ranks documents by their embeddings.",  # title and text
    ],
    {document!r}, {document_length},
)
scores = queries @ documents.T
```
"""

_POOLED = {
    "lasttoken": "pooled = states[torch.arange(len(texts)), mask.sum(dim=1) - 1]",
    "cls": "pooled = states[:, 0]",
    "mean": "pooled = (states * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)",
}
"""Poolings that are one line, by their names in sentence-transformers."""


def model_card(
    *,
    name: str,
    tokenizer: TextTokenizer,
    embedding_dim: int,
    is_normalized: bool,
    is_causal: bool,
    mode: str,
    is_plain: bool,
    has_code: bool,
    dtype: str,
    cosines: Sequence[float],
    facts: CardFacts | None = None,
    has_contract: bool = True,
) -> str:
    """Return the README of the folder `name`.

    Args:
        mode: the pooling's name in sentence-transformers.
        is_plain: the pooled state of the backbone, normalized or not, is the embedding.
        has_contract: the folder has a contract, so that Quarry loads it by its own means.
        facts: of the run; None: nothing is known.
    """
    facts = facts or CardFacts()
    cost = (
        f"Weights in {dtype}: over eight fixed texts the cosine to the model in float32 is at "
        f"least {min(cosines):.6f}, {sum(cosines) / len(cosines):.6f} on average."
    )
    titled = Document(document_id="", title="TITLE", text="TEXT")
    tags = ["sentence-transformers", *(["custom_code"] if has_code else [])]
    others = [_QUARRY.format(name=name)] if has_contract else []
    if is_plain and not has_code and mode in _POOLED:
        others.append(_transformers(name, tokenizer, mode=mode, is_normalized=is_normalized))
    lines = contract_lines(tokenizer, pooling=mode, is_causal=is_causal)
    return _CARD.format(
        header=front_matter(name, facts, library="sentence-transformers", tags=tags, more={}),
        name=name,
        arguments=", trust_remote_code=True" if has_code else "",
        documents=_WITH_CODE if has_code else _WITHOUT_CODE,
        how="a dict of title and text" if has_code else "one string: title, a space, text",
        titled=fed(tokenizer, titled, "document"),
        untitled=fed(tokenizer, Document(document_id="", text="TEXT"), "document"),
        contract="\n".join(f"- {line}" for line in lines),
        dim=embedding_dim,
        similarity="cosine" if is_normalized else "inner product",
        cost=cost,
        code=_CODE if has_code else "",
        others="\n".join(others),
        sections=sections(facts),
    )


def _transformers(name: str, tokenizer: TextTokenizer, *, mode: str, is_normalized: bool) -> str:
    normalized = "torch.nn.functional.normalize(pooled, dim=1)"
    return _TRANSFORMERS.format(
        name=name,
        pooled=_POOLED[mode],
        returned=normalized if is_normalized else "pooled",
        query=tokenizer.frames["query"].literals[0],
        document=tokenizer.frames["document"].literals[0],
        query_length=max_length(tokenizer, "query"),
        document_length=max_length(tokenizer, "document"),
    )


_FOLDER = """\
{header}
# A dense retriever, as it was trained

{what} `quarry_contract.json` says how texts are fed to it.

```python
import quarry

retriever = quarry.load("{name}")
queries = retriever.encode_queries(["what is a dense retriever?"])
documents = retriever.encode_documents(["It ranks documents by their embeddings."])
scores = queries @ documents.T
```

For sentence-transformers, other servers and the hub: `quarry-train task=export run={name}`.

{contract}
- {dim} dimensions, compared by {similarity}.

{sections}"""


def folder_card(
    *,
    name: str,
    tokenizer: TextTokenizer,
    embedding_dim: int,
    is_normalized: bool,
    is_causal: bool,
    pooling: str,
    has_adapter: bool,
    facts: CardFacts,
) -> str:
    """Return the README of the folder that training writes.

    Args:
        has_adapter: the folder has an adapter's weights alone.
    """
    library = "peft" if has_adapter else "transformers"
    lines = [
        *contract_lines(tokenizer, pooling=pooling, is_causal=is_causal),
        f"A document: {fed(tokenizer, Document(document_id='', text='TEXT'), 'document')}.",
    ]
    return _FOLDER.format(
        header=front_matter(name, facts, library=library, tags=[], more={}),
        what="The weights of an adapter; they need the base model."
        if has_adapter
        else "A complete model.",
        name=name,
        contract="\n".join(f"- {line}" for line in lines),
        dim=embedding_dim,
        similarity="cosine" if is_normalized else "inner product",
        sections=sections(facts),
    )
