"""Export a trained model as a sentence-transformers folder, and measure the loss of precision.

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
from quarry.errors import UserError
from quarry.models.backbones.fingerprint import weights_fingerprint
from quarry.models.backbones.text_model import text_model
from quarry.models.bi_encoder import BiEncoder
from quarry.models.building import build_bi_encoder
from quarry.models.dtypes import DTYPES
from quarry.retrieval.export.export_folder import export_sentence_transformers, pooling_mode
from quarry.retrieval.export.loading import Export
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
from quarry.runtime.task_output import show


def export(
    config: DictConfig, *, dtype: str, folder: str | None, base_path: str | None = None
) -> dict[str, float]:
    """Export `run=DIR`; return the smallest and the mean cosine to the model in float32.

    Args:
        dtype: float32, bfloat16 or float16, of the weights in the folder.
        folder: target folder; null: `export` in the named hydra.run.dir, else in the run directory.
        base_path: folder of an adapter's base model, if it was moved since training.
    """
    quiet_libraries()
    refuse_other_overrides(
        ("task", "run", "hydra"),
        why="cannot be changed by task=export: the model is exported as it was saved. Leave it "
        "out; task.dtype, task.folder and task.base_path are what can be set.",
    )
    require("sentence_transformers", what="task=export")
    if dtype not in DTYPES:
        raise UserError(f"task.dtype={dtype} is not one of {', '.join(DTYPES)}.")
    with _owned(config.run):
        return _export(config, dtype=dtype, folder=folder, base_path=base_path)


def _owned(path: str | None) -> AbstractContextManager[None]:
    """Own the run directory that is exported; a model folder has no owner."""
    run = RunDirectory(Path(path or "").expanduser())
    return owned(run.path) if path is not None and run.config.exists() else nullcontext()


def _export(
    config: DictConfig, *, dtype: str, folder: str | None, base_path: str | None
) -> dict[str, float]:
    trusted = trusted_packages(config)
    consolidate_if_unfinished(config.run, trusted=trusted)
    stored = open_stored_model(config.run, base_path=base_path, trusted=trusted)
    named = named_run_directory(config)
    target = stored.export if named is None else named / "export"
    if folder is not None:
        target = Path(folder).expanduser().absolute()
    if target.exists():
        raise UserError(
            f"{target} exists and is not overwritten. Remove it, or export to another folder: "
            "task.folder=DIR"
        )
    pooling_mode(
        stored.parts.spec.options.pooling
    )  # refuses poolings that cannot be exported before loading
    model = build_bi_encoder(stored.parts.spec, is_trained=False)
    _check_disk(target, model, dtype=dtype)
    exported = export_sentence_transformers(
        target,
        model=model,
        tokenizer=stored.parts.tokenizer,
        dtype=DTYPES[dtype],
        contract=_contract(stored, dtype=dtype),
        replay=partial(_replayed, trusted=trusted),
    )
    least, mean = min(exported.cosines), sum(exported.cosines) / len(exported.cosines)
    num_tokens = [len(ids) for ids in golden_token_ids(stored.parts.tokenizer)]
    show(
        golden_table(num_tokens, {"cosine to float32": exported.cosines}),
        _where(target, exported),
        result_line=f"cosine smallest={least:.6f} mean={mean:.6f}",
    )
    return {"export/cosine_smallest": least, "export/cosine_mean": mean}


def _check_disk(target: Path, model: BiEncoder, *, dtype: str) -> None:
    """Refuse an export whose weights do not fit, before anything is computed or written."""
    num_weights = sum(one.numel() for one in text_model(model.backbone).parameters())
    need, free = num_weights * DTYPES[dtype].itemsize, free_bytes(target.parent)
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


def _where(folder: Path, exported: Export) -> str:
    num_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    more = ", trust_remote_code=True" if exported.has_code else ""
    return (
        f"Exported: {folder} ({num_bytes / 2**20:,.1f} MiB, {exported.dtype})\n"
        f'Load it: SentenceTransformer("{folder}"{more})'
    )
