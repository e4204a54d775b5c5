"""Folders that cannot be followed, each one change away from one that can."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from helpers.pickles import Bomb
from helpers.sentence_folders import SHAPE, edit

WIDTH: int = SHAPE["hidden_size"]
MARK = "opened"
"""A file that a payload would leave in the folder."""

Change = Callable[[Path], None]


@dataclass(frozen=True, kw_only=True)
class Refused:
    """What is done to a folder of `sentence_folder` with a Dense, and what the message holds.

    Attributes:
        facts: patterns that are all in the message.
    """

    change: Change
    facts: tuple[str, ...]


def _edited(name: str, **changes: Any) -> Change:
    return lambda folder: edit(folder / name, **changes)


def _modules(*kinds: str) -> Change:
    """Put modules of these types into the list; the folder has the files of the usual ones."""
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Dense": "2_Dense"}

    def change(folder: Path) -> None:
        types = [kind if "." in kind else f"sentence_transformers.models.{kind}" for kind in kinds]
        modules = [
            {"idx": i, "name": str(i), "path": paths.get(kind, f"{i}_{kind}"), "type": type_}
            for i, (kind, type_) in enumerate(zip(kinds, types, strict=True))
        ]
        (folder / "modules.json").write_text(json.dumps(modules))

    return change


def _text(name: str, text: str) -> Change:
    return lambda folder: _put(folder / name, text)


def _put(file: Path, text: str) -> None:
    file.write_text(text)


def _removed(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def _dense_of_another_shape(folder: Path) -> None:
    file = folder / "2_Dense" / "model.safetensors"
    weights = load_file(file)
    weights["linear.weight"] = torch.zeros(12, WIDTH - 1)
    save_file(weights, file)


def _second_dense(folder: Path) -> None:
    _modules("Transformer", "Pooling", "Dense", "Dense")(folder)
    shutil.copytree(folder / "2_Dense", folder / "3_Dense")
    edit(folder / "3_Dense" / "config.json", in_features=13)
    modules = json.loads((folder / "modules.json").read_text())
    modules[3]["path"] = "3_Dense"
    (folder / "modules.json").write_text(json.dumps(modules))


def _unstated_width(folder: Path) -> None:
    edit(folder / POOLING, embedding_dimension=None, word_embedding_dimension=None)
    edit(folder / DENSE, in_features=48)


def _cut_by_tokenizer_json(folder: Path) -> None:
    file = folder / "tokenizer.json"
    cut = {"direction": "Left", "max_length": 24, "strategy": "LongestFirst", "stride": 0}
    edit(file, truncation=cut)
    edit(folder / "tokenizer_config.json", truncation_side=None)


def _payload(folder: Path) -> None:
    file = folder / "2_Dense" / "model.safetensors"
    weights = load_file(file)
    file.unlink()
    torch.save({**weights, "more": Bomb(folder / MARK)}, file.with_name("pytorch_model.bin"))


def _added_token(folder: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.add_tokens([f"[word {i}]" for i in range(SHAPE["vocab_size"] + 1 - len(tokenizer))])
    tokenizer.save_pretrained(folder)


POOLING, DENSE = "1_Pooling/config.json", "2_Dense/config.json"
MODEL, TRANSFORMER = "config_sentence_transformers.json", "sentence_bert_config.json"
VOCABULARY = r"\[word \d+\].*id 64.*64 rows"

REFUSED: dict[str, Refused] = {
    "a custom module": Refused(
        change=_modules("custom_st.Transformer", "Pooling"),
        facts=("modules.json", "custom_st.Transformer", "Transformer, Pooling, Dense, Normalize"),
    ),
    **{
        f"a module {kind}": Refused(
            change=_modules(*kinds), facts=("modules.json", f"module {kind}", "not supported")
        )
        for kind, kinds in {
            "LSTM": ("Transformer", "LSTM", "Pooling"),
            "Router": ("Router", "Pooling"),
            "CLIPModel": ("CLIPModel",),
        }.items()
    },
    "another order": Refused(
        change=_modules("Transformer", "Dense", "Pooling"),
        facts=("modules.json", "Transformer, Dense, Pooling", "then any number of Dense"),
    ),
    "no modules": Refused(change=_text("modules.json", "[]"), facts=("modules.json", "none")),
    "modules that are no JSON": Refused(
        change=_text("modules.json", '[{"idx": 0,'), facts=("modules.json", "type and path")
    ),
    "modules without a type": Refused(
        change=_text("modules.json", '[{"idx": 0, "path": ""}]'),
        facts=("modules.json", "type and path"),
    ),
    "modules that are an object": Refused(
        change=_text("modules.json", '{"type": "Transformer"}'),
        facts=("modules.json", "type and path"),
    ),
    "modules that are a number": Refused(
        change=_text("modules.json", "3"), facts=("modules.json", "type and path")
    ),
    "no file of the pooling": Refused(
        change=_removed(POOLING), facts=("1_Pooling/config.json", "modules.json names a Pooling")
    ),
    "a file of the pooling that is no JSON": Refused(
        change=_text(POOLING, "{"), facts=("1_Pooling/config.json", "not valid JSON")
    ),
    "an unknown key of the pooling": Refused(
        change=_edited(POOLING, pooling_mode_attention=True),
        facts=("1_Pooling/config.json", "pooling_mode_attention", "include_prompt"),
    ),
    "two poolings": Refused(
        change=_edited(
            POOLING, pooling_mode=None, pooling_mode_cls_token=True, pooling_mode_mean_tokens=True
        ),
        facts=("1_Pooling/config.json", "cls, mean", "one of cls, max, mean"),
    ),
    "two poolings in a list": Refused(
        change=_edited(POOLING, pooling_mode=["cls", "max"]),
        facts=("1_Pooling/config.json", "cls, max", "one of cls, max, mean"),
    ),
    "an unknown pooling": Refused(
        change=_edited(POOLING, pooling_mode="attention"),
        facts=("1_Pooling/config.json", "attention", "one of cls, max, mean"),
    ),
    "poolings that contradict": Refused(
        change=_edited(POOLING, pooling_mode_cls_token=True),
        facts=("1_Pooling/config.json", "pooling_mode='mean'", "pooling_mode_cls_token"),
    ),
    "a flag of the prompt that is none": Refused(
        change=_edited(POOLING, include_prompt="no"),
        facts=("1_Pooling/config.json", "include_prompt='no'", "true or false"),
    ),
    "a pooling of another width": Refused(
        change=lambda folder: (
            edit(folder / POOLING, word_embedding_dimension=48, embedding_dimension=48),
            _modules("Transformer", "Pooling")(folder),
        )[0],
        facts=("1_Pooling/config.json", "48", "hidden_size", "32"),
    ),
    "a width that is none": Refused(
        change=_edited(POOLING, embedding_dimension="wide"),
        facts=("1_Pooling/config.json", "embedding_dimension='wide'", "1 or more"),
    ),
    "widths that contradict": Refused(
        change=_edited(POOLING, word_embedding_dimension=48, embedding_dimension=32),
        facts=("1_Pooling/config.json", "embedding_dimension=32", "word_embedding_dimension=48"),
    ),
    "a pooling in a list of lists": Refused(
        change=_edited(POOLING, pooling_mode=[["mean"]]),
        facts=("1_Pooling/config.json", "one of cls, max, mean"),
    ),
    "an unknown key of a Dense": Refused(
        change=_edited(DENSE, dropout=0.1),
        facts=("2_Dense/config.json", "dropout", "in_features"),
    ),
    "an unknown activation": Refused(
        change=_edited(DENSE, activation_function="torch.nn.modules.activation.PReLU"),
        facts=("2_Dense/config.json", "PReLU", "Identity, Tanh"),
    ),
    "an activation of another package": Refused(
        change=_edited(DENSE, activation_function="os.Tanh"),
        facts=("2_Dense/config.json", "os.Tanh", "Identity, Tanh"),
    ),
    "a Dense of token states": Refused(
        change=_edited(DENSE, module_input_name="token_embeddings"),
        facts=("2_Dense/config.json", "module_input_name='token_embeddings'", "sentence_embedding"),
    ),
    "a Dense of another width": Refused(
        change=_edited(DENSE, in_features=48),
        facts=("2_Dense/config.json", "in_features=48", "the pooling gives embeddings of 32"),
    ),
    "a second Dense of another width": Refused(
        change=_second_dense,
        facts=("3_Dense/config.json", "in_features=13", "Dense 1 gives embeddings of 12"),
    ),
    "a Dense that is as wide as a pooling of no stated width": Refused(
        change=_unstated_width,
        facts=("2_Dense", "48", "hidden_size", "32"),
    ),
    "a Dense without a width": Refused(
        change=_edited(DENSE, out_features=None),
        facts=("2_Dense/config.json", "out_features=None", "1 or more"),
    ),
    "Dense weights of another shape": Refused(
        change=_dense_of_another_shape,
        facts=("2_Dense/model.safetensors", "linear.weight", r"12, 31", r"12, 32"),
    ),
    "Dense weights with a payload": Refused(
        change=_payload, facts=("2_Dense/pytorch_model.bin", "more than weights", "safetensors")
    ),
    "damaged Dense weights": Refused(
        change=_text("2_Dense/model.safetensors", "none"),
        facts=("2_Dense/model.safetensors", "cannot be read"),
    ),
    "no Dense weights": Refused(
        change=_removed("2_Dense/model.safetensors"),
        facts=("2_Dense", "model.safetensors", "pytorch_model.bin"),
    ),
    "cut embeddings": Refused(
        change=_edited(MODEL, truncate_dim=16), facts=(MODEL, "truncate_dim=16", "remove the key")
    ),
    "another similarity": Refused(
        change=_edited(MODEL, similarity_fn_name="euclidean"),
        facts=(MODEL, "similarity_fn_name='euclidean'", "cosine and dot"),
    ),
    "another kind of model": Refused(
        change=_edited(MODEL, model_type="CrossEncoder"),
        facts=(MODEL, "model_type='CrossEncoder'", "SentenceTransformer"),
    ),
    "another task": Refused(
        change=_edited(TRANSFORMER, transformer_task="fill-mask"),
        facts=(TRANSFORMER, "transformer_task='fill-mask'", "feature-extraction"),
    ),
    "messages": Refused(
        change=_edited(
            TRANSFORMER,
            modality_config={
                "text": {"method": "forward", "method_output_name": "last_hidden_state"},
                "message": {"method": "forward", "method_output_name": "last_hidden_state"},
            },
        ),
        facts=(TRANSFORMER, "modality_config", "message", "last_hidden_state"),
    ),
    "modalities that are none": Refused(
        change=_edited(TRANSFORMER, modality_config=["text"]),
        facts=(TRANSFORMER, "modality_config", "last_hidden_state"),
    ),
    "settings of processing": Refused(
        change=_edited(TRANSFORMER, processing_kwargs={"text": {"padding": "max_length"}}),
        facts=(TRANSFORMER, "processing_kwargs", "not supported"),
    ),
    "arguments that change embeddings": Refused(
        change=_edited(TRANSFORMER, config_kwargs={"is_causal": False}),
        facts=(TRANSFORMER, "config_kwargs: is_causal", "not supported"),
    ),
    "texts cut on the left": Refused(
        change=_edited("tokenizer_config.json", truncation_side="left"),
        facts=("tokenizer_config.json", "truncation_side='left'", "'right'"),
    ),
    "texts cut on the left where there is a length": Refused(
        change=lambda folder: (
            edit(folder / "tokenizer_config.json", truncation_side="left"),
            edit(folder / TRANSFORMER, max_seq_length=16),
        )[0],
        facts=("tokenizer_config.json", "truncation_side='left'", "'right'"),
    ),
    "texts cut on the left by tokenizer.json": Refused(
        change=_cut_by_tokenizer_json, facts=("tokenizer.json", "'left'", "'right'")
    ),
    **{
        f"a length of {json.dumps(length)}": Refused(
            change=_edited(TRANSFORMER, max_seq_length=length),
            facts=(TRANSFORMER, rf"max_seq_length\): texts of {length!r}", "1 or more"),
        )
        for length in (0, -1, True, 3.5, "long")
    },
    "a length of queries of 0": Refused(
        change=_edited(TRANSFORMER, query_length=0),
        facts=(TRANSFORMER, r"query_length\): texts of 0", "1 or more"),
    ),
    "a length beyond the positions": Refused(
        change=_edited(TRANSFORMER, max_seq_length=41),
        facts=("max_query_length: .*41 tokens", "positions for 40", "max_document_length=40"),
    ),
    "prompts that are no texts": Refused(
        change=_edited(MODEL, prompts={"query": 3}),
        facts=(MODEL, r"prompts=\{'query': 3\}", "names to texts"),
    ),
    "prompts that are a list": Refused(
        change=_edited(MODEL, prompts=["query: "]), facts=(MODEL, "prompts=", "names to texts")
    ),
    "prompts of tasks alone": Refused(
        change=_edited(MODEL, prompts={"STS": "same: ", "Classification": "class: "}),
        facts=(MODEL, "Classification, STS", r"prompt\.query='class: \{text\}'"),
    ),
    "a token beyond the rows": Refused(
        change=_added_token, facts=(VOCABULARY, r"model\.tokenizer_path=DIR")
    ),
}
