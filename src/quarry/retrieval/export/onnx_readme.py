"""Write the README of a folder with an ONNX file: how to run it, contract, data, results."""

from __future__ import annotations

from quarry.data.tokenization import TextTokenizer
from quarry.retrieval.export.card_facts import CardFacts
from quarry.retrieval.export.card_sections import contract_lines, fed, front_matter, sections
from quarry.retrieval.export.loading import Export
from quarry.retrieval.export.tokenizer import max_length, needs_code
from quarry.types import Document, Role

_CARD = """\
{header}
# A dense retriever as ONNX

`model.onnx` takes `input_ids` and `attention_mask`, int64 [batch, length], padded on either side,
and gives `sentence_embedding`, float32 [batch, {dim}]. Pooling and normalization are inside.

{code}
{contract}
- {dim} dimensions, compared by {similarity}.
- Over eight fixed texts, alone and in padded batches, the cosine between onnxruntime and the model
  in float32 is at least {least:.6f}.

{sections}"""

_CODE = """\
```python
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("{name}/tokenizer.json")
session = onnxruntime.InferenceSession("{name}/model.onnx")


def encode(texts, before, after, num_tokens):
    tokenizer.no_padding()
{cut}
    tokenizer.enable_padding(pad_id={pad_id})
    batch = tokenizer.encode_batch(
        [before + text + after for text in texts], add_special_tokens={adds}
    )
    inputs = {{
        "input_ids": np.array([row.ids for row in batch], dtype=np.int64),
        "attention_mask": np.array([row.attention_mask for row in batch], dtype=np.int64),
    }}
    return session.run(["sentence_embedding"], inputs)[0]


queries = encode(["what is a dense retriever?"], {query})
documents = encode(["It ranks documents by their embeddings."], {document})
scores = queries @ documents.T
```
"""

_CUT_ROW = "    tokenizer.enable_truncation(num_tokens)"

_CUT_TEXT = """\
    offsets = [tokenizer.encode(text, add_special_tokens=False).offsets for text in texts]
    texts = [
        text if len(places) <= num_tokens else text[: places[num_tokens][0]]
        for text, places in zip(texts, offsets)
    ]"""

_NO_CODE = """\
The prompt repeats the text. The rows of token ids are those of `quarry_contract.json`, where the
golden texts and their ids are examples.
"""


def onnx_card(
    export: Export,
    *,
    name: str,
    tokenizer: TextTokenizer,
    embedding_dim: int,
    is_normalized: bool,
    is_causal: bool,
    mode: str,
    facts: CardFacts,
) -> str:
    """Return the README of the folder `name`; see `readme.model_card`."""
    lines = [
        *contract_lines(tokenizer, pooling=mode, is_causal=is_causal),
        f"A document: {fed(tokenizer, Document(document_id='', text='TEXT'), 'document')}.",
        "With a title: "
        f"{fed(tokenizer, Document(document_id='', title='TITLE', text='TEXT'), 'document')}.",
    ]
    return _CARD.format(
        header=front_matter(name, facts, library="onnx", tags=["onnx"], more={}),
        code=_code(name, tokenizer),
        contract="\n".join(f"- {line}" for line in lines),
        dim=embedding_dim,
        similarity="cosine" if is_normalized else "inner product",
        least=min(export.cosines),
        sections=sections(facts),
    )


def _code(name: str, tokenizer: TextTokenizer) -> str:
    if any(frame.num_copies > 1 for frame in tokenizer.frames.values()):
        return _NO_CODE
    is_prefix = not needs_code(tokenizer)
    return _CODE.format(
        name=name,
        pad_id=tokenizer.tokenizer.pad_token_id or 0,
        cut=_CUT_ROW if is_prefix else _CUT_TEXT,
        adds=is_prefix,
        query=_arguments(tokenizer, "query", is_prefix=is_prefix),
        document=_arguments(tokenizer, "document", is_prefix=is_prefix),
    )


def _arguments(tokenizer: TextTokenizer, role: Role, *, is_prefix: bool) -> str:
    """Return what stands around a text of this role, and a number of tokens, as Python."""
    frame = tokenizer.frames[role]
    before, after = frame.literals
    if is_prefix:  # the tokenizer of the folder adds the special tokens
        return f"{before!r}, {after!r}, {max_length(tokenizer, role)}"
    blank = " " if frame.keeps_empty_title and role == "document" else ""
    start, end = (
        "".join(tokenizer.tokenizer.convert_ids_to_tokens(list(ids)))
        for ids in (frame.start_ids, frame.end_ids)
    )
    return f"{start + before + blank!r}, {after + end!r}, {tokenizer.room(role)}"
