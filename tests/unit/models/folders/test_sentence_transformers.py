"""What files of sentence-transformers state, key by key, and where it is said to stand."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from quarry.errors import UserError
from quarry.models.folders.sentence_transformers import (
    read_sentence_transformers,
    transformer_path,
)
from quarry.models.folders.stated import Fact, Statement

MODEL = "config_sentence_transformers.json"
SETTINGS = "sentence_bert_config.json"


def written(folder: Path, *, normalize: bool = True, path: str = "", **files: Any) -> Path:
    """A folder with these files by name ("tokenizer_config" is tokenizer_config.json)."""
    kinds = {"Transformer": path, "Pooling": "1_Pooling"}
    kinds |= {"Normalize": "2_Normalize"} if normalize else {}
    modules = [
        {"path": at, "type": f"sentence_transformers.models.{kind}"} for kind, at in kinds.items()
    ]
    defaults = {
        "modules": modules,
        "1_Pooling/config": {"pooling_mode": "cls", "embedding_dimension": 32},
    }
    for name, content in (defaults | files).items():
        file = folder / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
    return folder


def read(folder: Path, **more: Any) -> Statement:
    found = read_sentence_transformers(str(written(folder, **more)))
    assert found is not None
    return found


def model(**content: Any) -> dict[str, Any]:
    return {"config_sentence_transformers": content}


def settings(**content: Any) -> dict[str, Any]:
    return {"sentence_bert_config": content}


def test_a_folder_without_modules_states_nothing(tmp_path: Path) -> None:
    assert read_sentence_transformers(str(tmp_path)) is None
    assert transformer_path(str(tmp_path)) == ""


def test_the_least_that_is_stated(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert found.facts["model.pooling"].source == "1_Pooling/config.json"
    assert found.facts["prompt.end_token"].value == "tokenizer"
    assert set(found.facts) == {"model.pooling", "prompt.end_token", "model.normalize"}
    assert (found.width, found.projections, found.lower_case) == (32, (), None)
    assert (found.notes, found.refusals) == ((), {})


def test_a_transformer_in_a_subfolder(tmp_path: Path) -> None:
    folder = written(
        tmp_path, path="0_Transformer", **{f"0_Transformer/{SETTINGS[:-5]}": {"max_seq_length": 9}}
    )
    assert transformer_path(str(folder)) == "0_Transformer"
    found = read_sentence_transformers(str(folder))
    assert found is not None
    assert found.transformer == "0_Transformer"
    assert found.facts["prompt.max_query_length"].value == 9


@pytest.mark.parametrize(
    ("has_module", "similarity", "value", "source"),
    [
        (True, "dot", True, "modules.json"),
        (True, None, True, "modules.json"),
        (False, "cosine", True, "similarity_fn_name=cosine"),
        (False, "dot", False, "similarity_fn_name=dot"),
        (False, None, True, "default similarity"),
    ],
)
def test_normalization_is_that_of_a_module_or_of_the_similarity(
    tmp_path: Path, has_module: bool, similarity: str | None, value: bool, source: str
) -> None:
    files = model(similarity_fn_name=similarity)
    fact = read(tmp_path, normalize=has_module, **files).facts["model.normalize"]
    assert fact.value is value
    assert source in fact.source


def test_prompts_of_both_roles(tmp_path: Path) -> None:
    found = read(tmp_path, **model(prompts={"query": "q {x}: ", "document": ""}))
    assert found.facts["prompt.query"] == Fact(
        value="q {{x}}: {text}", source=f"{MODEL} (prompts.query)"
    )
    assert found.facts["prompt.document"].value == "{text}"
    assert (found.notes, found.refusals) == ((), {})


@pytest.mark.parametrize("document", [None, ""])
@pytest.mark.parametrize("name", ["passage", "corpus"])
def test_a_prompt_of_passages_is_noted_and_not_used(
    tmp_path: Path, name: str, document: str | None
) -> None:
    prompts = {"query": "q: ", "document": document, name: "p: "}
    found = read(tmp_path, **model(prompts=prompts))
    (note,) = found.notes
    assert repr(name) in note
    assert "prompt.document='p: {text}'" in note
    used = found.facts.get("prompt.document")
    assert used is None or used.value == "{text}"


def test_a_prompt_of_passages_beside_one_of_documents_is_not_noted(tmp_path: Path) -> None:
    prompts = {"query": "q: ", "document": "d: ", "passage": "p: "}
    assert read(tmp_path, **model(prompts=prompts)).notes == ()


@pytest.mark.parametrize(
    ("default", "is_noted"), [("STS", True), ("query", False), ("document", False), (None, False)]
)
def test_a_default_prompt_is_noted_and_not_used(
    tmp_path: Path, default: str | None, is_noted: bool
) -> None:
    prompts = {"query": "q: ", "document": "d: ", "STS": "same: "}
    found = read(tmp_path, **model(prompts=prompts, default_prompt_name=default))
    assert [("'STS'" in note, "same: " in note) for note in found.notes] == [
        (True, True)
    ] * is_noted
    assert found.facts["prompt.query"].value == "q: {text}"


@pytest.mark.parametrize(
    ("prompts", "is_open"),
    [
        ({"STS": "same: "}, True),
        ({"STS": "same: ", "document": "d: "}, True),
        ({"passage": "p: "}, True),
        ({"STS": "same: ", "query": ""}, True),
        ({"passage": "p: ", "query": ""}, False),
        ({"STS": "same: ", "query": "q: "}, False),
        ({"STS": ""}, False),
        ({"document": "d: "}, False),
        ({}, False),
        (None, False),
    ],
)
def test_prompts_without_one_of_queries_leave_it_open(
    tmp_path: Path, prompts: dict[str, str] | None, is_open: bool
) -> None:
    refusals = read(tmp_path, **model(prompts=prompts)).refusals
    assert list(refusals) == (["prompt.query"] if is_open else [])
    if is_open:
        assert MODEL in refusals["prompt.query"]
        assert "prompt.query='{text}'" in refusals["prompt.query"]


@pytest.mark.parametrize(
    ("files", "query", "document", "source"),
    [
        (settings(max_seq_length=9), 9, 9, f"{SETTINGS} (max_seq_length)"),
        (settings(max_seq_length=9, query_length=5), 5, 9, f"{SETTINGS} (query_length)"),
        (settings(query_length=5, document_length=7), 5, 7, f"{SETTINGS} (query_length)"),
        ({"sentence_roberta_config": {"max_seq_length": 9}}, 9, 9, "sentence_roberta_config.json"),
        (
            settings(max_seq_length=None)
            | {"tokenizer_config": {"model_max_length": 24}}
            | {"config": {"max_position_embeddings": 40}},
            24, 24, "tokenizer_config.json (model_max_length)",
        ),
        (
            {"tokenizer_config": {"model_max_length": 1e30}}
            | {"config": {"max_position_embeddings": 40}},
            40, 40, "config.json (max_position_embeddings)",
        ),
    ],
)  # fmt: skip
def test_lengths(
    tmp_path: Path, files: dict[str, Any], query: int, document: int, source: str
) -> None:
    facts = read(tmp_path, **files).facts
    assert facts["prompt.max_query_length"].value == query
    assert facts["prompt.max_document_length"].value == document
    assert facts["prompt.max_query_length"].source.startswith(source)


def test_no_length_is_stated_where_no_file_has_one(tmp_path: Path) -> None:
    facts = read(tmp_path, tokenizer_config={"model_max_length": 1e30}).facts
    assert not any("length" in key for key in facts)


@pytest.mark.parametrize("length", [0, -1, True, 3.5, "9", [9]])
@pytest.mark.parametrize("key", ["max_seq_length", "query_length", "document_length"])
def test_a_length_that_is_none_is_refused(tmp_path: Path, key: str, length: object) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, **settings(**{key: length}))
    assert f"{SETTINGS} ({key})" in str(caught.value)
    assert f"{length!r} tokens" in str(caught.value)


@pytest.mark.parametrize("length", [0, -1])
def test_a_length_of_the_tokenizer_that_is_none_is_refused(tmp_path: Path, length: int) -> None:
    with pytest.raises(
        UserError, match=rf"tokenizer_config\.json \(model_max_length\).* {length} "
    ):
        read(tmp_path, tokenizer_config={"model_max_length": length})


@pytest.mark.parametrize(("value", "is_lower"), [(True, True), (False, False), (None, False)])
def test_lower_case(tmp_path: Path, value: bool | None, is_lower: bool) -> None:
    found = read(tmp_path, **settings(do_lower_case=value)).lower_case
    expected = Fact(value=True, source=f"{SETTINGS} (do_lower_case)")
    assert found == (expected if is_lower else None)


@pytest.mark.parametrize("key", ["model_args", "config_kwargs", "tokenizer_args"])
def test_arguments_that_may_change_embeddings_are_refused(tmp_path: Path, key: str) -> None:
    read(tmp_path, **settings(**{key: {"torch_dtype": "bfloat16", "trust_remote_code": False}}))
    read(tmp_path, **settings(**{key: None}))
    with pytest.raises(UserError, match=rf"{SETTINGS}: {key}: is_causal: .*attn_implementation"):
        read(tmp_path, **settings(**{key: {"is_causal": False}}))


def test_an_unknown_key_of_the_transformer_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        read(tmp_path, **settings(max_seq_length=9, color="red"))
    assert [SETTINGS in m and "color" in m for m in caplog.messages] == [True]


@pytest.mark.parametrize(
    ("files", "facts"),
    [
        (model(truncate_dim=16), ["truncate_dim=16"]),
        (model(similarity_fn_name="manhattan"), ["'manhattan'", "cosine and dot"]),
        (model(model_type="SparseEncoder"), ["'SparseEncoder'", "SentenceTransformer"]),
        (model(prompts={"query": ["q"]}), ["prompts=", "texts"]),
        (settings(transformer_task="sequence-classification"), ["transformer_task"]),
        (settings(query_expansion={"length": 32}), ["query_expansion"]),
        (settings(processing_kwargs={"text": {}}), ["processing_kwargs"]),
        (settings(modality_config={"text": {"method": "get_text_features"}}), ["modality_config"]),
        (settings(modality_config={"image": {}}), ["modality_config"]),
        (settings(modality_config=None), ["modality_config"]),
    ],
)
def test_what_cannot_be_followed_is_refused_by_file(
    tmp_path: Path, files: dict[str, Any], facts: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, **files)
    for fact in [f"{next(iter(files))}.json", *facts]:
        assert fact in str(caught.value)
