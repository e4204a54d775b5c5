"""What embeddings are stored under: everything that decides them, and nothing else."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file, save_file

from helpers.models import letter_tokenizer, tiny_folder
from helpers.sentence_folders import dense, edit, sentence_folder
from quarry.assembly import evaluation_encoder
from quarry.assembly.evaluation_encoder import (
    embedding_contract,
    stored_encoder_builder,
    unique_encoder_builder,
)
from quarry.assembly.model_parts import build_model_parts
from quarry.config.instantiate import build
from quarry.config.settled_contract import settle
from quarry.errors import UserError
from quarry.models.adapters.lora import LoRA
from quarry.models.building import build_bi_encoder
from quarry.retrieval.stored_encoder import StoredEncoder
from quarry.types import ROLES, Document


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_folder(tmp_path / "model")


def configured(folder: Path, overrides: dict[str, Any] | None = None) -> DictConfig:
    config = OmegaConf.create(
        {
            "model": {
                "_target_": "quarry.models.model_spec.model_spec",
                "path": str(folder),
                "revision": None,
                "replica": None,
                "pooling": {"_target_": "quarry.models.pooling.mean.Mean"},
                "adapter": {"_target_": "quarry.models.adapters.full.FullFineTuning"},
                "is_causal": True,
                "normalize": True,
                "dtype": "float32",
                "attention": "auto",
                "linear_precision": None,
                "compile": False,
                "gradient_checkpointing": False,
                "trust_remote_code": False,
            },
            "prompt": {"_target_": "quarry.data.prompts.Prompt", "query": "Q:{text}"},
            "trainer": {"precision": "32-true"},
            "evaluation": {
                "max_tokens_per_batch": 100,
                "store_dtype": "float32",
                "corpus_on_disk": "auto",
                "corpus_dtype": "float32",
            },
            "paths": {"store_dir": str(folder.parent / "store"), "run_dir": str(folder.parent)},
        }
    )
    for key, value in (overrides or {}).items():
        OmegaConf.update(config, key, value, merge=False, force_add=True)
    return config


def contract(config: DictConfig) -> dict[str, Any]:
    memo = Path(config.paths.store_dir) / "weights"
    return dict(embedding_contract(config, build_model_parts(config), memo=memo))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.pooling", {"_target_": "quarry.models.pooling.last_token.LastToken"}),
        ("model.is_causal", False),
        ("model.normalize", False),
        ("model.dtype", "bfloat16"),
        ("model.attention", "grid"),
        ("model.linear_precision", "fp8"),
        ("trainer.precision", "bf16-mixed"),
        ("prompt.length_counts", "text"),
        ("prompt.end_token", None),
    ],
)
def test_what_decides_embeddings_is_in_it(folder: Path, key: str, value: object) -> None:
    before, after = contract(configured(folder)), contract(configured(folder, {key: value}))
    assert all(before[role] != after[role] for role in ("query", "document"))


def test_keys_that_were_renamed_find_what_is_stored(folder: Path) -> None:
    for precision, stored in ((None, "plain"), ("fp8", "fp8")):
        found = contract(configured(folder, {"model.linear_precision": precision}))
        assert found["query"]["linear"] == stored
        assert found["query"]["is_normalized"] is True
        assert not {"linear_precision", "normalize"} & set(found["query"])


@pytest.mark.parametrize(
    ("key", "value"),
    [("prompt.document", "P:{text}"), ("prompt.max_document_length", 7)],
)
def test_a_role_has_its_own_prompt_and_length(folder: Path, key: str, value: object) -> None:
    before, after = contract(configured(folder)), contract(configured(folder, {key: value}))
    assert before["query"] == after["query"]
    assert before["document"] != after["document"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.compile", True),
        ("evaluation.max_tokens_per_batch", 9),
        ("model.adapter", LoRA),
        ("prompt.strip", True),  # it changes the text, which is what the store looks up
    ],
)
def test_what_changes_last_bits_at_most_is_not(folder: Path, key: str, value: object) -> None:
    if value is LoRA:  # of training
        value = {"_target_": "quarry.models.adapters.lora.LoRA", "r": 2, "alpha": 4, "dropout": 0.0}
        value |= {"target_modules": ["q_proj"]}
    assert contract(configured(folder)) == contract(configured(folder, {key: value}))


def test_weights_tokenizer_and_the_code_of_the_pooling(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contracts = [contract(configured(folder))]
    tensors = load_file(folder / "model.safetensors")
    tensors["norm.weight"][-1] += 1e-3
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    contracts.append(contract(configured(folder)))
    letter_tokenizer(has_bos=True).save_pretrained(folder)
    contracts.append(contract(configured(folder)))
    monkeypatch.setattr(evaluation_encoder.inspect, "getsource", lambda _: "changed")
    contracts.append(contract(configured(folder)))
    for earlier, later in pairwise(contracts):
        assert earlier["document"] != later["document"]


def test_an_adapter_counts_with_its_base(folder: Path) -> None:
    adapter = folder.parent / "adapter"
    lora = LoRA(r=2, alpha=4, dropout=0.0, target_modules=["q_proj"])
    spec = build(configured(folder).model)
    spec = replace(spec, options=replace(spec.options, adapter=lora))
    build_bi_encoder(spec).backbone.save_pretrained(adapter)
    letter_tokenizer().save_pretrained(adapter)
    base, adapted = contract(configured(folder)), contract(configured(adapter))
    assert adapted["query"]["weights"][0] == base["query"]["weights"][0]
    assert (len(base["query"]["weights"]), len(adapted["query"]["weights"])) == (1, 2)
    file = adapter / "adapter_config.json"
    file.write_text(file.read_text().replace('"lora_alpha": 4', '"lora_alpha": 8'))
    scaled = contract(configured(adapter))
    assert scaled["query"]["weights"][1] != adapted["query"]["weights"][1]


def test_what_comes_after_the_states_counts(tmp_path: Path) -> None:
    """Folders of sentence-transformers with one transformer never share a vector."""
    first = sentence_folder(
        tmp_path / "first",
        denses=[dense(32, 16, torch.nn.Tanh())],
        prompts={"query": "query : ", "document": "passage : "},
    )
    names = ("weights", "activation", "include_prompt")
    folders = {name: Path(shutil.copytree(first, tmp_path / name)) for name in names}
    file = folders["weights"] / "2_Dense" / "model.safetensors"
    save_file({key: 1.01 * weight for key, weight in load_file(file).items()}, file)
    activation = "torch.nn.modules.linear.Identity"
    edit(folders["activation"] / "2_Dense" / "config.json", activation_function=activation)
    edit(folders["include_prompt"] / "1_Pooling" / "config.json", include_prompt=False)
    found = []
    for path in (first, *folders.values()):
        config = configured(path)
        settle(config, build(config.model), explicit=[], options={})
        found.append(contract(config))
    for role in ROLES:
        keys = [json.dumps(each[role], sort_keys=True) for each in found]
        assert len(set(keys)) == len(keys)
        assert len({json.dumps(each[role]["weights"]) for each in found}) == 1


def test_the_tokenizer_is_the_same_before_and_after_it_has_worked(folder: Path) -> None:
    config = configured(folder)
    parts = build_model_parts(config)
    before = parts.tokenizer.digest()
    parts.tokenizer([Document(document_id="d", text="abc" * 500)], "document")
    assert parts.tokenizer.digest() == before


def test_both_encoders_give_the_same_bits(folder: Path) -> None:
    config = configured(folder)
    parts = build_model_parts(config)
    model = build_bi_encoder(parts.spec, is_trained=False)
    documents = [Document(document_id=text, text=text) for text in ("abc", "de", "abc", "f")]
    in_memory = unique_encoder_builder(config, parts)(model).encode(documents, "document")
    build_stored = stored_encoder_builder(config, parts)
    stored = build_stored(model)
    assert isinstance(stored, StoredEncoder)
    assert torch.equal(stored.encode(documents, "document")[:], in_memory[:])
    (manifest,) = (folder.parent / "store").glob("*/*/manifest.json")
    assert str(folder) in manifest.read_text()
    # built again, it knows what it has verified
    assert build_stored(model).shelves is stored.shelves


def test_training_keeps_a_corpus_as_it_is_told_in_the_run_directory(folder: Path) -> None:
    config = configured(folder, {"evaluation.corpus_on_disk": True})
    config.evaluation.corpus_dtype = "float16"
    build_encoder = unique_encoder_builder(config, build_model_parts(config))
    storages = [build_encoder(torch.nn.Linear(1, 1)).storage for _ in range(2)]  # type: ignore[attr-defined]
    assert storages[0] is storages[1], "what was told once is not told again"
    found = (storages[0].folder, storages[0].on_disk, storages[0].dtype)
    assert found == (folder.parent, True, "float16")


def test_a_resumed_run_is_told_of_a_wrong_value(folder: Path) -> None:
    config = configured(folder, {"evaluation.corpus_on_disk": "maybe"})
    with pytest.raises(UserError, match=r"evaluation\.corpus_on_disk=maybe: unknown value"):
        unique_encoder_builder(config, build_model_parts(config))


def test_a_store_that_cannot_be_made_is_refused_before_the_model_loads(folder: Path) -> None:
    (folder.parent / "file").write_text("")
    config = configured(folder, {"paths.store_dir": str(folder.parent / "file" / "store")})
    with pytest.raises(
        UserError, match=r"paths\.store_dir=.*cannot be created \(Not a directory\)"
    ):
        stored_encoder_builder(config, build_model_parts(config))
