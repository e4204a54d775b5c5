"""Export a model as a sentence-transformers folder, and verify it with the golden texts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from quarry.data.tokenization import TextTokenizer
from quarry.errors import UserError
from quarry.models.adapters.lora import merge_adapter
from quarry.models.backbones.text_model import text_model
from quarry.models.bi_encoder import BiEncoder
from quarry.models.pooling.base import Pooling
from quarry.models.saved import CONTRACT_FILE, GOLDEN_FILE
from quarry.retrieval.export.card_facts import CardFacts
from quarry.retrieval.export.dense_modules import dense_modules, projections_of
from quarry.retrieval.export.loading import (
    CODE,
    CODE_FILE,
    EXPORT_FILE,
    Export,
    exported_embeddings,
)
from quarry.retrieval.export.readme import model_card
from quarry.retrieval.export.tokenizer import exported_tokenizer, max_length, needs_code
from quarry.retrieval.golden_texts import (
    GOLDEN,
    MIN_COSINE,
    golden_cosines,
    golden_embeddings,
    name_of,
)
from quarry.runtime.files import sync, sync_folder, write_json, write_text
from quarry.runtime.leftovers import scratch_folder
from quarry.types import ROLES, Role

TEXT_ONLY = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}


def export_sentence_transformers(
    folder: Path,
    *,
    model: BiEncoder,
    tokenizer: TextTokenizer,
    dtype: torch.dtype,
    contract: Mapping[str, Any] | None = None,
    replay: Callable[[Path], Tensor] | None = None,
    facts: CardFacts | None = None,
) -> Export:
    """Write all that sentence-transformers needs to `folder`, or nothing.

    Prompts that are a prefix need sentence-transformers alone. Others (text behind the text, a text
    that is repeated or stripped, the space of a missing title) include a module of Quarry's,
    `framed_transformer.py`.

    Args:
        folder: must not exist.
        model: converted to float32, merged with its adapter and cast to `dtype` in place; not
            usable afterwards. Of a vision-language backbone only the language model is written.
        dtype: dtype of the weights in the folder.
        contract: contract of the folder, by which Quarry can load it as a model (`models.saved`).
        replay: loads the finished folder in Quarry, as its contract says, and returns the
            embeddings of the golden texts in float32. They are stored beside the contract.
        facts: of the run, for the model card.

    Raises:
        UserError: the pooling cannot be expressed; the tokenizer cannot pad; or the loaded folder
            does not give the same embeddings.
    """
    mode = pooling_mode(model.pooling)
    model.float()
    reference = golden_embeddings(model, tokenizer)
    backbone = text_model(merge_adapter(model.backbone)).to(dtype)
    with scratch_folder(folder) as scratch:
        target = scratch / folder.name  # the name under which transformers caches a folder's code
        _write(target, backbone, model=model, tokenizer=tokenizer, mode=mode)
        backbone.to("meta")  # from here on the folder's weights are loaded
        export = _proven(target, reference, tokenizer=tokenizer, dtype=dtype)
        if contract is not None:
            write_json(target / CONTRACT_FILE, {**contract, **projections_of(contract)})
        if replay is not None:
            vectors = replay(target)
            found = golden_cosines(reference, vectors).tolist()
            _check(found, dtype=export.dtype, loaded_by="Quarry")
            save_file({"embeddings": vectors.contiguous()}, target / GOLDEN_FILE)
        card = model_card(
            name=folder.name,
            tokenizer=tokenizer,
            embedding_dim=model.embedding_dim,
            is_normalized=model.is_normalized,
            is_causal=model.is_causal,
            mode=mode,
            is_plain=_includes_prompt(model) and not model.projections and model.kept_dim is None,
            has_contract=contract is not None,
            facts=facts,
            **asdict(export),
        )
        write_text(target / "README.md", card)
        for file in target.rglob("*"):
            file.chmod(0o755 if file.is_dir() else 0o644)  # safetensors: for their owner alone
        sync(target)
        target.replace(folder)
        sync_folder(folder.parent)
    return export


def pooling_mode(pooling: Pooling) -> str:
    """Return sentence-transformers' name of this pooling."""
    mode = getattr(pooling, "sentence_transformers_mode", None)
    if mode is None:
        raise UserError(
            f"sentence-transformers has no pooling like {type(pooling).__name__}, so the model "
            "cannot be exported. If it has one, name it in the class: sentence_transformers_mode."
        )
    return str(mode)


def _write(
    target: Path,
    backbone: PreTrainedModel,
    *,
    model: BiEncoder,
    tokenizer: TextTokenizer,
    mode: str,
) -> None:
    """Write the folder without card, from an intermediate one with backbone and tokenizer alone."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize
    from sentence_transformers.sentence_transformer.modules import Pooling as PoolingModule

    width = int(backbone.config.hidden_size)
    bare = target.with_name(f"{target.name}.bare")
    backbone.save_pretrained(bare)
    exported_tokenizer(tokenizer).save_pretrained(bare)
    modules: list[Any] = [
        _input_module(bare, model=model, tokenizer=tokenizer),
        PoolingModule(width, pooling_mode=mode, include_prompt=_includes_prompt(model)),
        *dense_modules(model, dtype=backbone.dtype),
    ]
    if model.is_normalized:
        modules.append(Normalize())
    SentenceTransformer(
        modules=modules,
        device="cpu",
        prompts={role: tokenizer.frames[role].literals[0] for role in ROLES},
        similarity_fn_name="cosine" if model.is_normalized else "dot",
    ).save(str(target), create_model_card=False)
    if needs_code(tokenizer):
        shutil.copyfile(CODE_FILE, target / CODE_FILE.name)
        _name_code(target / "modules.json")


def _includes_prompt(model: BiEncoder) -> bool:
    return bool(getattr(model.pooling, "include_prompt", True))


def _input_module(bare: Path, *, model: BiEncoder, tokenizer: TextTokenizer) -> Any:
    from sentence_transformers.base.modules import Transformer

    from quarry.retrieval.export.framed_transformer import FramedTransformer

    common: dict[str, Any] = {
        "modality_config": TEXT_ONLY,
        "module_output_name": "token_embeddings",
    }
    if not needs_code(tokenizer):
        lengths = {f"{role}_length": max_length(tokenizer, role) for role in ROLES}
        return Transformer(str(bare), **common, **lengths)
    return FramedTransformer(
        str(bare),
        frames={role: frame_as_data(tokenizer, role) for role in ROLES},
        pools_last_copy=getattr(model.pooling, "pools_last_copy", False),
        **common,
    )


def frame_as_data(tokenizer: TextTokenizer, role: Role) -> dict[str, Any]:
    """Return a frame as data for `FramedTransformer`."""
    frame = tokenizer.frames[role]
    return {
        "literals": list(frame.literals),
        "start_ids": list(frame.start_ids),
        "end_ids": list(frame.end_ids),
        "max_length": tokenizer.prompt.max_length(role),
        "counts_text": tokenizer.prompt.length_counts != "all",
        "counted": frame.counted,
        "keeps_empty_title": frame.keeps_empty_title,
        "strip": frame.strip,
        "prompt_length": tokenizer.num_prompt_tokens(role),
    }


def _name_code(modules_file: Path) -> None:
    """Name Quarry's module by its file in the folder instead of by this installation."""
    modules = json.loads(modules_file.read_text(encoding="utf-8"))
    modules[0]["type"] = CODE
    write_text(modules_file, json.dumps(modules, indent=2) + "\n")


def _proven(
    target: Path, reference: Tensor, *, tokenizer: TextTokenizer, dtype: torch.dtype
) -> Export:
    """Compare the folder, loaded by sentence-transformers, with `reference`; record the result."""
    cosines = golden_cosines(reference, exported_embeddings(target, tokenizer))
    export = Export(
        dtype=str(dtype).removeprefix("torch."),
        has_code=needs_code(tokenizer),
        cosines=tuple(cosines.tolist()),
    )
    _check(export.cosines, dtype=export.dtype, loaded_by="sentence-transformers")
    write_json(target / EXPORT_FILE, {"format": 1, **asdict(export)})
    return export


def _check(cosines: Sequence[float], *, dtype: str, loaded_by: str) -> None:
    """Raise if an embedding is wrong; a smaller dtype may cost precision, but lose no embedding."""
    floor = MIN_COSINE if dtype == "float32" else 0.0
    for item, cosine in zip(GOLDEN, cosines, strict=True):
        if not cosine >= floor:  # NaN, too
            raise UserError(
                f"The golden text {name_of(item)!r} has a cosine of {cosine:.6f} between this "
                f"model in float32 and its export in {dtype}, so nothing was written. "
                + (
                    f"{loaded_by} computes something else with what was exported."
                    if dtype == "float32"
                    else "Its numbers do not fit this type: task.dtype=bfloat16 or float32."
                )
            )
