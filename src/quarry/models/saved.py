"""The saved model: a folder that loads again here, in transformers or in peft, plus its contract.

The contract is how text must be fed to reproduce the embeddings: prompt, pooling, attention and
normalisation, and the vectors of a few golden texts to prove it by. It is plain data; nothing in it
is executed.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from quarry.errors import UserError
from quarry.models.backbones.fingerprint import weights_fingerprint
from quarry.models.backbones.model_files import model_file, read_json
from quarry.models.bi_encoder import BiEncoder
from quarry.models.projections import ACTIVATIONS, Dense
from quarry.runtime.files import write_json
from quarry.runtime.renamed_keys import with_renamed_keys

CONTRACT_FILE = "quarry_contract.json"
GOLDEN_FILE = "quarry_golden.safetensors"
"""The vectors of the golden texts, tensor "embeddings" [num_texts, dim] fp32."""

PROJECTIONS_FILE = "quarry_projections.safetensors"
"""The weights of all projections, `0.linear.weight` and so on, fp32."""


def save_model(
    folder: Path,
    *,
    model: BiEncoder,
    tokenizer: PreTrainedTokenizerBase,
    contract: Mapping[str, Any],
    state: Mapping[str, Tensor] | None = None,
    projections: Mapping[str, Tensor] | None = None,
    add_golden: Callable[[Path], None] | None = None,
) -> None:
    """Writes weights (an adapter where there is one), tokenizer and contract, in place of an older
    folder only once everything is on disk.

    Args:
        state, projections: weights of the backbone and of the projections, where the model's own
            are not whole.
        add_golden: called with the finished folder before it takes its place: what it computes
            there comes from the weights as they were saved.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    scratch.chmod(0o755)
    try:
        more = {} if state is None else {"state_dict": dict(state)}
        model.backbone.save_pretrained(scratch, safe_serialization=True, **more)
        tokenizer.save_pretrained(scratch)
        projections = model.projections.state_dict() if projections is None else projections
        if projections:
            weights = {name: tensor.contiguous() for name, tensor in projections.items()}
            save_file(weights, scratch / PROJECTIONS_FILE)
        write_json(scratch / CONTRACT_FILE, contract)
        if add_golden is not None:
            add_golden(scratch)
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


def read_contract(source: str | Path, *, revision: str | None = None) -> dict[str, Any] | None:
    """Return the contract beside saved weights; None for a folder or hub id that has none.

    Raises:
        UserError: the file holds no JSON object.
    """
    file = model_file(str(source), CONTRACT_FILE, revision=revision)
    return None if file is None else with_renamed_keys(read_json(file))


def stored_projections(contract: Mapping[str, Any], file: Path) -> tuple[Dense, ...]:
    """Return the projections that a contract names.

    Args:
        file: the contract's; weights lie beside it.

    Raises:
        UserError: an entry is none, or its weights lie elsewhere.
    """
    chain = []
    for entry in contract.get("projections", []):
        try:
            weights = PurePosixPath(entry["weights"])
            dense = Dense(**entry | {"weights": file.parent / weights})
        except (TypeError, KeyError) as error:
            raise UserError(f"{file}: projections holds {entry!r}. Restore the file.") from error
        is_inside = not weights.is_absolute() and ".." not in weights.parts
        if not is_inside or weights.suffix != ".safetensors" or dense.activation not in ACTIVATIONS:
            raise UserError(
                f"{file}: projections holds {entry!r}: weights must be a .safetensors file beside "
                f"it, and the activation one of {', '.join(ACTIVATIONS)}. Restore the file."
            )
        chain.append(dense)
    return tuple(chain)


def describe_base(source: str, *, revision: str | None, commit: str | None) -> dict[str, Any]:
    """What a contract says of the weights that training began with."""
    fingerprint = weights_fingerprint(source, revision=revision)
    return {
        "source": source,
        "revision": revision,
        "commit": commit,
        "fingerprint": fingerprint,
    }


def check_base(
    adapter: str, base: str, *, revision: str | None, adapter_revision: str | None = None
) -> None:
    """Refuses weights that an adapter was not trained on, where its contract tells.

    Args:
        revision, adapter_revision: of the base and of the adapter, on the hub.

    Raises:
        UserError: the base's weights are others than those that the contract describes.
    """
    contract = read_contract(adapter, revision=adapter_revision)
    expected = (contract or {}).get("base", {})
    if "fingerprint" not in expected:
        return
    found = weights_fingerprint(base, revision=revision)
    if found != expected["fingerprint"]:
        raise UserError(
            f"The adapter in {adapter} was trained on {expected.get('source')} (weights "
            f"{expected['fingerprint'][:12]}...), and {base} holds other weights "
            f"({found[:12]}...). Give the base that it belongs to: model.base_path=DIR."
        )
