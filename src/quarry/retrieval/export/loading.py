"""Load an exported folder with sentence-transformers alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from quarry.data.rendering import Frame
from quarry.data.tokenization import TextTokenizer
from quarry.errors import UserError
from quarry.retrieval.golden_texts import GOLDEN, role_of
from quarry.types import Document, Query

EXPORT_FILE = "quarry_export.json"
"""File of an exported folder with its dtype and the cosines to the model in float32."""

CODE_FILE = Path(__file__).with_name("framed_transformer.py")
CODE = f"{CODE_FILE.stem}.FramedTransformer"
"""Quarry's module that an exported folder may name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """Facts about an exported folder.

    Attributes:
        dtype: dtype of its weights, such as "bfloat16".
        has_code: its prompts need the module in the folder, so loading it takes
            `trust_remote_code=True`.
        cosines: for each golden text, cosine between the model in float32 and the loaded folder.
    """

    dtype: str
    has_code: bool
    cosines: tuple[float, ...]


def read_export(folder: Path) -> Export:
    """Read the facts about an exported folder.

    Raises:
        UserError: Quarry has not written the folder.
    """
    file = folder / EXPORT_FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        cosines = tuple(float(cosine) for cosine in content["cosines"])
        export = Export(
            dtype=str(content["dtype"]), has_code=bool(content["has_code"]), cosines=cosines
        )
        if len(cosines) != len(GOLDEN):
            raise ValueError(f"{len(cosines)} cosines for {len(GOLDEN)} texts")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder} holds no readable {EXPORT_FILE}, so it is no folder that task=export wrote "
            f"({type(error).__name__}: {error}). Remove it, or name another."
        ) from error
    return export


def exported_embeddings(folder: Path, tokenizer: TextTokenizer) -> Tensor:
    """Return embeddings of the golden texts by sentence-transformers alone, [8, dim] fp32.

    Every text is a batch of its own.

    Args:
        tokenizer: tokenizer with the prompt of the export.

    Raises:
        UserError: the folder has code that is not this version's; it is not run.
    """
    from sentence_transformers import SentenceTransformer

    has_code = _may_run_code(folder)
    try:
        model = SentenceTransformer(
            str(folder),
            device="cpu",
            local_files_only=True,
            trust_remote_code=has_code,
            model_kwargs={"use_safetensors": True},  # a pickled checkpoint could run code
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"sentence-transformers cannot load {folder}: {error}") from error
    encode: dict[str, Any] = {"query": model.encode_query, "document": model.encode_document}
    rows = []
    for item in GOLDEN:
        role = role_of(item)
        given = as_given(item, tokenizer.frames[role], has_code=has_code)
        rows.append(encode[role](given, convert_to_tensor=True, show_progress_bar=False))
    return torch.stack(rows).float()


def as_given(item: Query | Document, frame: Frame, *, has_code: bool) -> str | dict[str, str]:
    """Return what a user passes to `encode_query` or `encode_document`, as the model card says.

    Args:
        has_code: the folder's own code joins titles and texts; without it the user does.
    """
    if not has_code:
        return frame.text_of(item)
    title = item.title if isinstance(item, Document) else ""
    return {"title": title, "text": item.text} if title else item.text


def _may_run_code(folder: Path) -> bool:
    """Return whether loading must run code in the folder; raise if it is not this version's."""
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    foreign = [m["type"] for m in modules if not m["type"].startswith("sentence_transformers.")]
    if not foreign:
        return False
    code = [(file.name, file.read_bytes()) for file in folder.rglob("*.py")]
    configs = [file.read_text(encoding="utf-8") for file in folder.glob("*config.json")]
    is_ours = foreign == [CODE] and code == [(CODE_FILE.name, CODE_FILE.read_bytes())]
    if not is_ours or any("auto_map" in config for config in configs):
        raise UserError(
            f"{folder} asks to run code that is not what this version writes there "
            f"({CODE_FILE.name}), and it is not run. Export the model again."
        )
    return True
