"""The saved model: a folder that loads again here, in transformers or in peft, plus its contract.

The contract is how text must be fed to reproduce the embeddings: prompt, pooling, attention and
normalisation. It is plain data; nothing in it is executed.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from quarry.errors import UserError
from quarry.models.bi_encoder import BiEncoder
from quarry.runtime.files import write_json

CONTRACT_FILE = "quarry_contract.json"


def save_model(
    folder: Path,
    *,
    model: BiEncoder,
    tokenizer: PreTrainedTokenizerBase,
    contract: Mapping[str, Any],
) -> None:
    """Writes weights (an adapter where there is one), tokenizer and contract, in place of an older
    folder only once everything is on disk."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    scratch.chmod(0o755)
    try:
        model.backbone.save_pretrained(scratch, safe_serialization=True)
        tokenizer.save_pretrained(scratch)
        write_json(scratch / CONTRACT_FILE, contract)
        for file in scratch.iterdir():
            if file.is_file():
                file.chmod(0o644)  # safetensors are written for their owner alone
        old = folder.with_name(f".{folder.name}.old")
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.replace(old)
        scratch.replace(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def read_contract(folder: str | Path) -> dict[str, Any] | None:
    """The contract beside saved weights; None for a folder (or hub id) that has none."""
    file = Path(folder) / CONTRACT_FILE
    if not file.exists():
        return None
    try:
        contract = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no UTF-8
        raise UserError(
            f"{file}: not valid JSON ({error}). Restore the file, or delete it and state the "
            "prompt and pooling on the command line."
        ) from error
    if not isinstance(contract, dict):
        raise UserError(f"{file}: must hold a JSON object, found {type(contract).__name__}.")
    return contract
