"""Verify that a saved model, its export or a server of it gives the stored golden embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from quarry.assembly.stored_model import StoredModel, open_stored_model
from quarry.config.overrides import (
    refuse_other_overrides,
    warn_of_run_directory,
    warn_without_effect,
)
from quarry.config.stored_targets import trusted_packages
from quarry.config.validation import validate_task
from quarry.errors import MissingPathError, UserError
from quarry.models.bi_encoder import BiEncoder
from quarry.models.building import build_bi_encoder
from quarry.models.dtypes import DTYPES
from quarry.models.saved import GOLDEN_FILE
from quarry.retrieval.endpoint.broken_rules import Sends
from quarry.retrieval.export.loading import exported_embeddings, read_export
from quarry.retrieval.export.onnx_folder import onnx_golden
from quarry.retrieval.export.onnx_session import ONNX_FILE
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
from quarry.tasks.verify_endpoint import Endpoint, check_endpoint, fetch_golden, verify_endpoint

MIN_COSINE_HALF = 0.99
"""Smallest cosine for golden vectors in half precision, where rounding depends on the machine."""

OF_ENDPOINT = [
    f"task.{key}" for key in ("endpoint_model", "token_env", "sends", "min_cosine", "timeout_s")
]
"""Keys that have an effect with a server alone."""


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
    config: DictConfig,
    *,
    export: str | None,
    base_path: str | None = None,
    endpoint: str | None = None,
    endpoint_model: str | None = None,
    token_env: str | None = None,
    sends: Sends = "rendered",
    min_cosine: float = 0.99,
    timeout_s: float = 60.0,
) -> dict[str, float]:
    """Verify `run=DIR`; return the smallest cosine of each stack.

    Args:
        export: the exported folder; null: `export` in the run directory, if there is one.
        base_path: folder of an adapter's base model, if it was moved since training.
        endpoint: base address of a server with the API of OpenAI's embeddings, which is verified
            in the place of the export. The further arguments are those of `Endpoint`.

    Raises:
        UserError: token ids or embeddings differ from the stored ones, with an example text.
    """
    quiet_libraries()
    validate_task(config)
    refuse_other_overrides(
        ("task", "run", "hydra"),
        why="cannot be changed by task=verify: the model is verified as it was saved. Leave it "
        "out; task.export, task.base_path and task.endpoint are what can be set.",
    )
    warn_of_run_directory(config, task="verify")
    server = None
    if endpoint is not None:
        warn_without_effect(["task.export"], reason="task.endpoint, which is verified instead")
        server = Endpoint(
            url=endpoint, model=endpoint_model, token_env=token_env, sends=sends,
            min_cosine=min_cosine, timeout_s=timeout_s,
        )  # fmt: skip
        check_endpoint(server)
        export = None
    else:
        warn_without_effect(OF_ENDPOINT, reason="task.endpoint=null: no server is asked")
    folder = Path(export).expanduser().absolute() if export is not None else None
    if folder is not None and not folder.is_dir():
        raise MissingPathError(f"task.export={export}: no such folder.")
    trusted = trusted_packages(config)
    stored = open_stored_model(config.run, base_path=base_path, trusted=trusted)
    dtype, token_ids = _golden_of(stored)
    reference = _reference(stored)
    if server is not None:  # it is asked before the model loads
        vectors = fetch_golden(server, stored.parts.tokenizer)
        model = _model(stored, dtype=dtype)
        _check(_ours(stored, model, reference, dtype=dtype))
        return verify_endpoint(server, vectors, model=model, tokenizer=stored.parts.tokenizer)
    replays = [_ours(stored, _model(stored, dtype=dtype), reference, dtype=dtype)]
    made = [stored.export, stored.home / "onnx"]
    for each in [one for one in made if one.is_dir()] if folder is None else [folder]:
        replays.append(_theirs(each, stored, reference, dtype=dtype))
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


def _model(stored: StoredModel, *, dtype: str) -> BiEncoder:
    spec = stored.parts.spec.saved_as(stored.folder, dtype=dtype)
    return build_bi_encoder(spec, is_trained=False).eval()


def _ours(stored: StoredModel, model: BiEncoder, reference: Tensor, *, dtype: str) -> Replay:
    found = golden_embeddings(model, stored.parts.tokenizer)
    return Replay(
        name="quarry",
        cosines=golden_cosines(reference, found).tolist(),
        floor=_floor(dtype),
        remedy=f"The weights in {stored.folder} (or those of its base) were changed, or a library "
        "computes otherwise: compare provenance.json of the run.",
    )


def _theirs(folder: Path, stored: StoredModel, reference: Tensor, *, dtype: str) -> Replay:
    """Replay the golden texts with sentence-transformers, or with onnxruntime.

    An export below float32 may lose twice its recorded loss: rounding differs between machines by
    at most the rounding itself.
    """
    again = f"{folder} was changed or is of another model: remove it and export again, "
    again += f"{own_command('train')} task=export run={stored.home}"
    if (folder / ONNX_FILE).is_file():
        require("onnxruntime", what=f"task=verify of {folder}")
        ways = [golden_cosines(reference, v) for v in onnx_golden(folder, stored.parts.tokenizer)]
        return Replay(
            name="onnxruntime",
            cosines=torch.stack(ways).amin(dim=0).tolist(),
            floor=_floor(dtype),
            remedy=f"{again} task.format=onnx",
        )
    require("sentence_transformers", what=f"task=verify of {folder}")
    exported = read_export(folder)
    found = exported_embeddings(folder, stored.parts.tokenizer)
    cost = 0.0 if exported.dtype == "float32" else 2 * (1 - min(exported.cosines))
    return Replay(
        name="sentence-transformers",
        cosines=golden_cosines(reference, found).tolist(),
        floor=_floor(dtype) - cost,
        remedy=again,
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
