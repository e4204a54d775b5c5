"""Export a trained model for sentence-transformers or as ONNX; measure the loss of precision.

The folder holds a contract, so quarry loads it, too: `eval.py model.path=RUN/export`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import Tensor

from quarry.assembly.saving import consolidate_if_unfinished
from quarry.assembly.stored_model import StoredModel, open_stored_model
from quarry.config.overrides import named_run_directory, refuse_other_overrides
from quarry.config.stored_targets import trusted_packages
from quarry.config.validation import validate_task
from quarry.errors import UserError
from quarry.models.backbones.fingerprint import weights_fingerprint
from quarry.models.backbones.text_model import text_model
from quarry.models.bi_encoder import BiEncoder
from quarry.models.building import build_bi_encoder
from quarry.models.dtypes import DTYPES
from quarry.retrieval.export.export_folder import export_sentence_transformers, pooling_mode
from quarry.retrieval.export.loading import Export
from quarry.retrieval.export.onnx_folder import export_onnx
from quarry.retrieval.export.onnx_session import ONNX_FILE
from quarry.retrieval.golden_texts import (
    golden_embeddings,
    golden_table,
    golden_texts,
    golden_token_ids,
)
from quarry.runtime.disk_errors import free_bytes, readable_size
from quarry.runtime.extras import require
from quarry.runtime.logging import quiet_libraries
from quarry.runtime.ownership import owned
from quarry.runtime.run_directory import RunDirectory
from quarry.runtime.task_output import show, tell
from quarry.tasks.run_card import card_facts

FORMATS = {"sentence_transformers": "export", "onnx": "onnx"}
"""Format -> name of its folder in the run directory."""


def export(
    config: DictConfig,
    *,
    dtype: str,
    folder: str | None,
    base_path: str | None = None,
    format: str = "sentence_transformers",
) -> dict[str, float]:
    """Export `run=DIR`; return the smallest and the mean cosine to the model in float32.

    Args:
        dtype: float32, bfloat16 or float16, of the weights in the folder.
        folder: target folder; null: `export`, or `onnx`, in the named hydra.run.dir, else in the
            run directory.
        base_path: folder of an adapter's base model, if it was moved since training.
        format: sentence_transformers, or onnx: an ONNX file with pooling and normalization.
    """
    quiet_libraries()
    validate_task(config)
    refuse_other_overrides(
        ("task", "run", "hydra"),
        why="cannot be changed by task=export: the model is exported as it was saved. Leave it "
        "out; task.format, task.dtype, task.folder and task.base_path are what can be set.",
    )
    if dtype not in DTYPES:
        raise UserError(f"task.dtype={dtype} is not one of {', '.join(DTYPES)}.")
    _check_format(format, dtype=dtype)
    with owned_source(config.run):
        exported, target = exported_folder(
            config, dtype=dtype, folder=folder, base_path=base_path, format=format
        )
    least, mean = min(exported.cosines), sum(exported.cosines) / len(exported.cosines)
    show(
        _where(target, exported, format=format),
        result_line=f"cosine smallest={least:.6f} mean={mean:.6f}",
    )
    return {"export/cosine_smallest": least, "export/cosine_mean": mean}


def _check_format(format: str, *, dtype: str) -> None:
    if format not in FORMATS:
        raise UserError(
            f"task.format={format}: not one of {', '.join(FORMATS)}. Fix: task.format=onnx"
        )
    if format == "onnx":
        for module in ("onnx", "onnxscript", "onnxruntime"):
            require(module, what="task=export task.format=onnx")
        if dtype != "float32":
            raise UserError(
                f"task.dtype={dtype}: task.format=onnx writes float32 alone, from weights of any "
                "dtype. Fix: leave it out"
            )
    else:
        require("sentence_transformers", what="task=export")


def owned_source(path: str | None) -> AbstractContextManager[None]:
    """Own the run directory that is exported; a model folder has no owner."""
    run = RunDirectory(Path(path or "").expanduser())
    return owned(run.path) if path is not None and run.config.exists() else nullcontext()


def exported_folder(
    config: DictConfig,
    *,
    dtype: str,
    folder: str | None,
    base_path: str | None = None,
    format: str = "sentence_transformers",
) -> tuple[Export, Path]:
    """Export `run=DIR`, print the table of golden texts, and return what was proven, and where.

    The caller owns the run directory. See `export`.
    """
    trusted = trusted_packages(config)
    consolidate_if_unfinished(config.run, trusted=trusted)
    stored = open_stored_model(config.run, base_path=base_path, trusted=trusted)
    named = named_run_directory(config)
    target = stored.export if named is None else named / "export"
    if format == "onnx":
        target = target.with_name(FORMATS[format])
    if folder is not None:
        target = Path(folder).expanduser().absolute()
    if target.exists():
        raise UserError(
            f"{target} exists and is not overwritten. Remove it, or export to another folder: "
            "task.folder=DIR"
        )
    # refuses poolings that cannot be exported before loading
    pooling_mode(stored.parts.spec.options.pooling)
    model = build_bi_encoder(stored.parts.spec, is_trained=False)
    _check_disk(target, model, dtype=dtype, num_copies=2 if format == "onnx" else 1)
    contract = _contract(stored, dtype=dtype)
    facts = card_facts(stored.home, stored.contract)
    if format == "onnx":
        exported = export_onnx(
            target, model=model, tokenizer=stored.parts.tokenizer, contract=contract, facts=facts
        )
    else:
        exported = export_sentence_transformers(
            target,
            model=model,
            tokenizer=stored.parts.tokenizer,
            dtype=DTYPES[dtype],
            contract=contract,
            replay=partial(_replayed, trusted=trusted),
            facts=facts,
        )
    num_tokens = [len(ids) for ids in golden_token_ids(stored.parts.tokenizer)]
    tell(golden_table(num_tokens, {"cosine to float32": exported.cosines}))
    return exported, target


def _check_disk(target: Path, model: BiEncoder, *, dtype: str, num_copies: int) -> None:
    """Refuse an export whose weights do not fit, before anything is computed or written."""
    num_weights = sum(one.numel() for one in text_model(model.backbone).parameters())
    need = num_copies * num_weights * DTYPES[dtype].itemsize
    free = free_bytes(target.parent)
    if need > free:
        raise UserError(
            f"{target}: the weights in {dtype} take {readable_size(need)}, and "
            f"{readable_size(free)} are free there. Nothing was written. Fix: make room, or "
            "task.folder=DIR on a larger disk"
        )


def _contract(stored: StoredModel, *, dtype: str) -> dict[str, Any]:
    """Return the run's contract, updated for the weights in the folder.

    `base` remains the weights that training started from; the folder's weights come from
    `exported_from`.
    """
    return {
        **stored.contract,
        "dtype": dtype,
        "exported_from": {
            "source": str(stored.folder),
            "fingerprint": weights_fingerprint(str(stored.folder)),
        },
        "golden": {
            "dtype": "float32",
            "texts": golden_texts(),
            "token_ids": golden_token_ids(stored.parts.tokenizer),
        },
    }


def _replayed(folder: Path, *, trusted: Sequence[str]) -> Tensor:
    """Return the golden embeddings of a model folder, checked against its contract."""
    parts = open_stored_model(str(folder), base_path=None, trusted=trusted).parts
    return golden_embeddings(build_bi_encoder(parts.spec, is_trained=False), parts.tokenizer)


def _where(folder: Path, exported: Export, *, format: str) -> str:
    num_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    more = ", trust_remote_code=True" if exported.has_code else ""
    load = f'SentenceTransformer("{folder}"{more})'
    if format == "onnx":
        load = f'onnxruntime.InferenceSession("{folder / ONNX_FILE}")'
    return (
        f"Exported: {folder} ({num_bytes / 2**20:,.1f} MiB, {exported.dtype})\n"
        f"Load it: {load}; README.md there has the code"
    )
