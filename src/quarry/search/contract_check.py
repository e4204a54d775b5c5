"""Refuse a model whose embeddings do not belong to an index, and name what differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from quarry.errors import UserError
from quarry.search.index_manifest import IndexManifest, contract_digest, plain

NAMES = {
    "weights": "weights",
    "frame": "prompt (prompt.query, prompt.document, prompt.end_token)",
    "max_length": "length (prompt.max_query_length, prompt.max_document_length)",
    "length_counts": "prompt.length_counts",
    "pooling": "model.pooling",
    "pooling_code": "code of the pooling",
    "is_causal": "model.is_causal",
    "is_normalized": "model.normalize",
    "dtype": "model.dtype",
    "attention": "model.attention",
    "linear": "model.linear_precision",
    "precision": "trainer.precision",
    "tokenizer": "tokenizer",
    "projections": "layers after the pooling",
    "embedding_dim": "model.embedding_dim",
    "version": "version of the encoding",
}
"""Part of a contract -> its name for people."""

NUM_CHARACTERS = 120


def check_contract(manifest: IndexManifest, contract: Mapping[str, Any], *, folder: Path) -> None:
    """Refuse queries of another model or contract than that of the index.

    Args:
        contract: of the loaded model, see `LoadedEncoder.embedding_contract`.

    Raises:
        UserError: the digests differ; the message has each part that does.
    """
    own = plain(contract)
    if contract_digest(own) == manifest.digest:
        return
    given = " ".join(manifest.model.get("overrides", ())) or "the model that it was built with"
    lines = "\n".join(f"- {line}" for line in contract_differences(manifest.contract, own))
    raise UserError(
        f"task.index={folder}: was built with another model or contract (digest "
        f"{manifest.digest[:12]}, here {contract_digest(own)[:12]}), so its vectors cannot be "
        f"compared with queries of this one:\n{lines}\nFix: leave the model out, which takes that "
        f"of the index, or give {given}"
    )


def contract_differences(stored: Mapping[str, Any], own: Mapping[str, Any]) -> Iterator[str]:
    """Yield each part that differs, once if it does so for both roles, with both values."""
    own = plain(own)
    seen = set()
    for role in sorted({*stored, *own}):
        there, here = stored.get(role) or {}, own.get(role) or {}
        for part in sorted({*there, *here}):
            if there.get(part) == here.get(part):
                continue
            name = NAMES.get(part, part)
            shown = f"{_shown(there.get(part))} in the index, {_shown(here.get(part))} here"
            if (part, shown) not in seen:
                seen.add((part, shown))
                yield (
                    f"{name}, {role}: {shown}"
                    if part in ("frame", "max_length")
                    else (f"{name}: {shown}")
                )


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= NUM_CHARACTERS else f"{text[:NUM_CHARACTERS]}..."
