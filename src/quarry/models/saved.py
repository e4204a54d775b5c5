"""Save a model as a folder that Quarry, transformers and peft load, with a contract beside it.

The contract states how to reproduce the embeddings: prompt, pooling, attention, normalization,
and the embeddings of a few golden texts to verify them. It is plain data; nothing in it is
executed.
"""

from __future__ import annotations

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
from quarry.runtime.files import remove, sync, sync_folder, write_json
from quarry.runtime.leftovers import scratch_folder
from quarry.runtime.renamed_keys import with_renamed_keys

CONTRACT_FILE = "quarry_contract.json"
GOLDEN_FILE = "quarry_golden.safetensors"
"""Embeddings of the golden texts: tensor "embeddings", [num_texts, dim] fp32."""

PROJECTIONS_FILE = "quarry_projections.safetensors"
"""Weights of all projections, `0.linear.weight` and so on, fp32."""


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
    """Write weights (the adapter's if there is one), tokenizer and contract into `folder`.

    An older folder is replaced only once everything is on disk.

    Args:
        state, projections: weights of the backbone and of the projections, if the model's own are
            sharded.
        add_golden: called with the finished temporary folder before it replaces `folder`, so that
            golden embeddings are computed from the weights as they were saved.
    """
    with scratch_folder(folder) as scratch:
        scratch.chmod(0o755)
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
                file.chmod(0o644)  # safetensors files are written readable by their owner alone
        sync(scratch)
        old = folder.with_name(f".{folder.name}.old")
        if folder.exists():
            remove(old)
            folder.replace(old)
        scratch.replace(folder)
        sync_folder(folder.parent)
        remove(old)  # of a link, the link alone


def read_contract(source: str | Path, *, revision: str | None = None) -> dict[str, Any] | None:
    """Return the contract of a saved model; None for a folder or hub id without one.

    Raises:
        UserError: the file holds no JSON object.
    """
    file = model_file(str(source), CONTRACT_FILE, revision=revision)
    return None if file is None else with_renamed_keys(read_json(file))


def stored_projections(contract: Mapping[str, Any], file: Path) -> tuple[Dense, ...]:
    """Return the projections that a contract lists.

    Args:
        file: the contract's file; weights lie beside it.

    Raises:
        UserError: an entry is malformed, or its weights lie in another folder.
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
    """Return a contract's entry on the weights that training began with."""
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
    """Refuse base weights that an adapter was not trained on, if its contract has a fingerprint.

    Args:
        revision, adapter_revision: hub revisions of the base and of the adapter.

    Raises:
        UserError: the fingerprint of the base's weights is not the contract's.
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
            f"({found[:12]}...). Fix: model.base_path=DIR of the base that it belongs to."
        )
