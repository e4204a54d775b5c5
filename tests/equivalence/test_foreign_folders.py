"""A folder of sentence-transformers gives here what it gives there, with nothing else said.

In fp32, packed here and padded there: two orders of summation differ by far less than 1e-5, another
token, pooling or projection by far more.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from torch.nn.functional import normalize

from helpers.embedding import embedded
from helpers.sentence_folders import (
    as_version_2,
    bert,
    dense,
    edit,
    plain_folder,
    qwen2,
    roberta,
    sentence_folder,
    word_tokenizer,
)
from quarry.types import Document, Query

TEXTS = [
    "the quick brown fox",
    "x",
    "is a Fox not an animal?",
    " A quick fox of the query ",
    "the quick brown fox is not an animal of x y z " * 8,
]
PROMPTS = {"query": "query: ", "document": "passage : "}


def ours(folder: Path, *overrides: str) -> tuple[list[Tensor], DictConfig]:
    queries = [Query(query_id=str(i), text=text) for i, text in enumerate(TEXTS)]
    documents = [Document(document_id=str(i), text=text) for i, text in enumerate(TEXTS)]
    return embedded(folder, queries, documents, *overrides)


def theirs(folder: Path) -> list[Tensor]:
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    return [
        encode(TEXTS, convert_to_tensor=True, batch_size=2, show_progress_bar=False)
        for encode in (model.encode_query, model.encode_document)
    ]


def with_modes(**more: object) -> dict[str, Callable[[Path], Path]]:
    modes = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")

    def made(mode: str) -> Callable[[Path], Path]:
        return lambda path: sentence_folder(
            path, pooling={"pooling_mode": mode, "include_prompt": False}, prompts=PROMPTS,
            is_normalized=False, similarity_fn_name="dot",
        )  # fmt: skip

    return {f"{mode} without the prompt": made(mode) for mode in modes}


FOLDERS: dict[str, Callable[[Path], Path]] = {
    **with_modes(),
    "mean": sentence_folder,
    "cls": lambda path: sentence_folder(path, pooling={"pooling_mode": "cls"}, prompts=PROMPTS),
    "max": lambda path: sentence_folder(path, pooling={"pooling_mode": "max"}),
    "prompts": lambda path: sentence_folder(path, prompts=PROMPTS),
    "an unused prompt": lambda path: sentence_folder(
        path, prompts={"query": "query: ", "passage": "passage : "}, default_prompt_name="passage"
    ),
    "dense": lambda path: sentence_folder(path, denses=[dense(32, 12, nn.Tanh())]),
    "dense without normalisation": lambda path: sentence_folder(
        path,
        denses=[dense(32, 48, nn.Identity(), bias=False), dense(48, 8, nn.GELU())],
        pooling={"pooling_mode": "mean_sqrt_len_tokens"},
        is_normalized=False,
        similarity_fn_name="dot",
    ),
    "dense with residuals": lambda path: sentence_folder(
        path,
        denses=[
            dense(32, 32, nn.ReLU(), use_residual=True),
            dense(32, 16, nn.SiLU(), use_residual=True),
        ],
    ),
    "lengths of roles": lambda path: sentence_folder(
        path, transformer={"query_length": 5, "document_length": 9}, prompts=PROMPTS
    ),
    "version 2": lambda path: as_version_2(sentence_folder(path)),
    "version 2, cls": lambda path: as_version_2(sentence_folder(path), mode="cls_token"),
    "version 1": lambda path: as_version_2(sentence_folder(path), subfolder="0_Transformer"),
    "roberta": lambda path: sentence_folder(path, model=roberta()),
    "a decoder whose tokenizer appends": lambda path: sentence_folder(
        path,
        model=qwen2(),
        tokenizer=word_tokenizer("$A [SEP]"),
        pooling={"pooling_mode": "lasttoken"},
        prompts={"query": "instruct : x\nquery : ", "document": ""},
    ),
    "a decoder whose tokenizer appends nothing": lambda path: sentence_folder(
        path, model=qwen2(), tokenizer=word_tokenizer("$A"), pooling={"pooling_mode": "lasttoken"}
    ),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_embeddings_are_those_of_sentence_transformers(name: str, tmp_path: Path) -> None:
    folder = FOLDERS[name](tmp_path / "folder")
    expected = theirs(folder)
    found, config = ours(folder)
    for one, other in zip(found, expected, strict=True):
        # by a module, or by the similarity alone
        same = normalize(other, dim=-1) if config.model.normalize else other
        torch.testing.assert_close(one, same, atol=1e-5, rtol=0)


def test_lower_case_is_that_of_the_file(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(lower_case=False)
    folder = sentence_folder(tmp_path / "folder", tokenizer=tokenizer)
    as_version_2(folder)
    before = ours(folder)[0]
    edit(folder / "sentence_bert_config.json", do_lower_case=True)
    after = ours(folder)[0]
    for one, other in zip(after, theirs(folder), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    assert (before[0] - after[0]).abs().max() > 0.01


def test_a_plain_encoder_is_as_sentence_transformers_takes_it(tmp_path: Path) -> None:
    folder = plain_folder(tmp_path / "folder", bert())
    found, config = ours(folder)
    assert config.model.pooling._target_.endswith(".Mean")
    assert config.prompt.max_document_length == 40, "the positions there are"
    # theirs cuts at the tokenizer's 24, which is no statement about the model
    for one, other in zip(found, theirs(folder), strict=True):
        torch.testing.assert_close(one[:4], normalize(other[:4], dim=-1), atol=1e-5, rtol=0)


def test_what_the_command_line_says_wins(tmp_path: Path) -> None:
    folder = sentence_folder(tmp_path / "folder", prompts=PROMPTS)
    found, config = ours(folder, "prompt.query='{text}'", "model/pooling=cls")
    other = sentence_folder(
        tmp_path / "other",
        pooling={"pooling_mode": "cls"},
        prompts={"document": PROMPTS["document"], "query": ""},
    )
    for one, expected in zip(found, theirs(other), strict=True):
        torch.testing.assert_close(one, expected, atol=1e-5, rtol=0)
    assert config.prompt.document == "passage : {text}"
