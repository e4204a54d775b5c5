"""Verify that a saved model and its export still give the stored golden embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from quarry.assembly.stored_model import StoredModel, open_stored_model
from quarry.config.overrides import refuse_other_overrides, warn_of_run_directory
from quarry.config.stored_targets import trusted_packages
from quarry.errors import MissingPathError, UserError
from quarry.models.building import build_bi_encoder
from quarry.models.dtypes import DTYPES
from quarry.models.saved import GOLDEN_FILE
from quarry.retrieval.export.loading import exported_embeddings, read_export
from quarry.retrieval.golden_texts import (
    GOLDEN,
    MIN_COSINE,
    golden_cosines,
    golden_embeddings,
    golden_table,
    name_of,
)
from quarry.runtime.extras import require
from quarry.runtime.logging import quiet_libraries
from quarry.runtime.own_command import own_command
from quarry.runtime.task_output import show

MIN_COSINE_HALF = 0.99
"""Smallest cosine for golden vectors in half precision, where rounding depends on the machine."""


@dataclass(frozen=True, kw_only=True)
class Replay:
    """The golden embeddings of one software stack, compared with the stored ones.

    Attributes:
        name: name of the stack.
        cosines: cosine of each text to its stored vector.
        floor: smallest cosine that counts as equal.
        remedy: what to do if a cosine is smaller.
    """

    name: str
    cosines: Sequence[float]
    floor: float
    remedy: str


def verify(
    config: DictConfig, *, export: str | None, base_path: str | None = None
) -> dict[str, float]:
    """Verify `run=DIR`; return the smallest cosine of each stack.

    Args:
        export: the exported folder; null: `export` in the run directory, if there is one.
        base_path: folder of an adapter's base model, if it was moved since training.

    Raises:
        UserError: token ids or embeddings differ from the stored ones, with an example text.
    """
    quiet_libraries()
    refuse_other_overrides(
        ("task", "run", "hydra"),
        why="cannot be changed by task=verify: the model is verified as it was saved. Leave it "
        "out; task.export and task.base_path are what can be set.",
    )
    warn_of_run_directory(config, task="verify")
    folder = Path(export).expanduser().absolute() if export is not None else None
    if folder is not None and not folder.is_dir():
        raise MissingPathError(f"task.export={export}: no such folder.")
    trusted = trusted_packages(config)
    stored = open_stored_model(config.run, base_path=base_path, trusted=trusted)
    dtype, token_ids = _golden_of(stored)
    reference = _reference(stored)
    replays = [_ours(stored, reference, dtype=dtype)]
    if folder is None and stored.export.is_dir():
        folder = stored.export
    if folder is not None:
        replays.append(_theirs(folder, stored, reference, dtype=dtype))
    least = {replay.name: min(replay.cosines) for replay in replays}
    show(
        golden_table([len(ids) for ids in token_ids], {r.name: r.cosines for r in replays}),
        "\n".join(f"{r.name}: at least {r.floor:.6f} is asked for" for r in replays),
        result_line=" ".join(["cosine", *(f"{name}={value:.6f}" for name, value in least.items())]),
    )
    for replay in replays:
        _check(replay)
    return {f"verify/{name}": value for name, value in least.items()}


def _golden_of(stored: StoredModel) -> tuple[str, list[list[int]]]:
    """Return dtype and token ids of the golden texts from the contract."""
    golden = stored.contract.get("golden")
    ids = golden.get("token_ids") if isinstance(golden, dict) else None
    dtype = golden.get("dtype", "float32") if isinstance(golden, dict) else None
    if dtype not in DTYPES or not isinstance(ids, list) or len(ids) != len(GOLDEN):
        raise UserError(
            f"The contract in {stored.folder} holds no golden texts of this version, so there is "
            "nothing to verify by. Was the model saved by another version?"
        )
    return dtype, ids


def _reference(stored: StoredModel) -> Tensor:
    file = stored.folder / GOLDEN_FILE
    if not file.exists():
        raise MissingPathError(f"{file} is missing: restore it, or save the model again.")
    try:
        vectors = load_file(file)["embeddings"]
    except (SafetensorError, KeyError) as error:
        raise UserError(f"{file} holds no golden vectors ({error}). Restore it.") from error
    if vectors.ndim != 2 or len(vectors) != len(GOLDEN):
        raise UserError(
            f"{file} holds vectors of shape {tuple(vectors.shape)}, and there are {len(GOLDEN)} "
            "golden texts. Was the model saved by another version?"
        )
    return vectors


def _ours(stored: StoredModel, reference: Tensor, *, dtype: str) -> Replay:
    spec = stored.parts.spec.saved_as(stored.folder, dtype=dtype)
    found = golden_embeddings(build_bi_encoder(spec, is_trained=False), stored.parts.tokenizer)
    return Replay(
        name="quarry",
        cosines=golden_cosines(reference, found).tolist(),
        floor=_floor(dtype),
        remedy=f"The weights in {stored.folder} (or those of its base) were changed, or a library "
        "computes otherwise: compare provenance.json of the run.",
    )


def _theirs(folder: Path, stored: StoredModel, reference: Tensor, *, dtype: str) -> Replay:
    """Replay the golden texts with sentence-transformers.

    An export below float32 may lose twice its recorded loss: rounding differs between machines by
    at most the rounding itself.
    """
    require("sentence_transformers", what=f"task=verify of {folder}")
    exported = read_export(folder)
    found = exported_embeddings(folder, stored.parts.tokenizer)
    cost = 0.0 if exported.dtype == "float32" else 2 * (1 - min(exported.cosines))
    return Replay(
        name="sentence-transformers",
        cosines=golden_cosines(reference, found).tolist(),
        floor=_floor(dtype) - cost,
        remedy=f"{folder} was changed or is of another model: remove it and export again, "
        f"{own_command('train')} task=export run={stored.home}",
    )


def _floor(dtype: str) -> float:
    return MIN_COSINE if dtype == "float32" else MIN_COSINE_HALF


def _check(replay: Replay) -> None:
    wrong = [
        f"{name_of(item)!r} ({cosine:.6f})"
        for item, cosine in zip(GOLDEN, replay.cosines, strict=True)
        if not cosine >= replay.floor  # NaN, too
    ]
    if wrong:
        raise UserError(
            f"{replay.name} no longer gives the stored embeddings of the golden texts "
            f"{', '.join(wrong)}: a cosine of {replay.floor:.6f} is asked for. {replay.remedy}"
        )
