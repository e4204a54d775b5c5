"""A spec finds adapters, their bases and tokenizers in folders and in the hub's cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.adapters import adapter_folder, base_folder, states_of_peft
from helpers.hub_cache import put_into_cache, use_cache
from helpers.models import letter_tokenizer
from quarry.data.packing import pack
from quarry.errors import UserError
from quarry.models import building
from quarry.models.adapters.full import FullFineTuning
from quarry.models.adapters.lora import LoRA
from quarry.models.building import build_bi_encoder, check_model, trained_part
from quarry.models.memory import outline
from quarry.models.model_spec import ModelSpec, model_spec
from quarry.models.pooling.last_token import LastToken
from quarry.models.saved import check_base, describe_base, save_model

OLD, NEW = "1" * 40, "2" * 40
TOKENS = pack([[5, 6, 7, 8, 9, 3], [4, 4]])


def spec(path: Path | str, **more: Any) -> ModelSpec:
    settings: dict[str, Any] = {
        "path": str(path),
        "revision": None,
        "replica": None,
        "pooling": LastToken(),
        "adapter": FullFineTuning(),
        "is_causal": True,
        "normalize": False,
        "dtype": "float32",
        "attention": "auto",
        "linear_precision": None,
        "compile": False,
        "trust_remote_code": False,
    }
    return model_spec(**(settings | more))


def edit_config(adapter: Path, **change: Any) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))


def first_embedding(built: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        embeddings: torch.Tensor = built.eval()(TOKENS)
    return embeddings[:1]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return base_folder(tmp_path / "base")


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    return adapter_folder(tmp_path / "adapter", base, target_modules=["q_proj", "lm_head"])


@pytest.fixture
def hub(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Path]:
    """some/adapter on some/base: the base's main is another model, and its old commit is named."""
    cache = tmp_path / "cache"
    use_cache(monkeypatch, cache)
    put_into_cache(cache, "some/base", base, commit=OLD, ref="v1")
    other = base_folder(tmp_path / "other", vocab_size=160)
    put_into_cache(cache, "some/base", other, commit=NEW, ref="main")
    edit_config(adapter, base_model_name_or_path="some/base", revision=OLD)
    put_into_cache(cache, "some/adapter", adapter, commit="a" * 40, ref="main")
    return base, adapter


def test_packed_an_adapter_of_a_language_model_is_what_peft_makes_of_it(
    base: Path, adapter: Path
) -> None:
    built = build_bi_encoder(spec(adapter))
    # fp32, another attention kernel
    torch.testing.assert_close(
        first_embedding(built), states_of_peft(base, adapter)[:, -1], atol=1e-5, rtol=0
    )


def test_an_adapter_and_its_base_come_from_the_hub(hub: tuple[Path, Path]) -> None:
    base, adapter = hub
    made = spec("some/adapter")
    assert (made.source.base_location(), made.source.base_revision()) == ("some/base", OLD)
    check_model(made, is_trained=True)
    built = build_bi_encoder(made)
    assert built.commit == OLD
    torch.testing.assert_close(
        first_embedding(built), states_of_peft(base, adapter)[:, -1], atol=1e-5, rtol=0
    )
    assert made.source.load_tokenizer().get_vocab() == letter_tokenizer().get_vocab()


def test_the_revision_of_the_user_is_the_adapter_s(hub: tuple[Path, Path], tmp_path: Path) -> None:
    _, adapter = hub
    edit_config(adapter, lora_alpha=1)
    put_into_cache(tmp_path / "cache", "some/adapter", adapter, commit="b" * 40, ref="weak")
    strong, weak = spec("some/adapter"), spec("some/adapter", revision="weak")
    assert (weak.source.base_location(), weak.source.base_revision()) == ("some/base", OLD)
    embeddings = [first_embedding(build_bi_encoder(each)) for each in (strong, weak)]
    assert not torch.allclose(*embeddings, atol=1e-2)


def test_the_revision_beside_an_adapter_in_a_folder_is_the_base_s(hub: tuple[Path, Path]) -> None:
    _, adapter = hub
    assert spec(adapter).source.base_revision() == OLD
    assert spec(adapter, revision=NEW).source.base_revision() == NEW
    moved = spec(adapter, base_path="some/moved")
    assert (moved.source.base_location(), moved.source.base_revision()) == ("some/moved", None)
    plain = spec("some/base", revision="v1")
    assert (plain.source.base_location(), plain.source.base_revision()) == ("some/base", "v1")


def test_a_tokenizer_beside_a_hub_adapter_is_taken(hub: tuple[Path, Path], tmp_path: Path) -> None:
    _, adapter = hub
    letter_tokenizer(has_bos=True).save_pretrained(adapter)
    put_into_cache(tmp_path / "cache", "some/own", adapter)
    assert spec("some/own").source.load_tokenizer().encode("a")[0] == 1  # <bos>
    assert spec("some/adapter").source.load_tokenizer().encode("a")[0] != 1


def test_trained_further_it_is_saved_with_its_base_and_loads_again(
    hub: tuple[Path, Path], tmp_path: Path
) -> None:
    made = spec("some/adapter")
    built = build_bi_encoder(made)
    for parameter in built.parameters():
        if parameter.requires_grad:
            parameter.data.mul_(1.5)
    source = made.source
    base = describe_base(source.base_location(), revision=source.base_revision(), commit=OLD)
    contract = {"base": base}
    folder = tmp_path / "run" / "model"
    save_model(folder, model=built, tokenizer=letter_tokenizer(), contract=contract)
    again = spec(folder)
    assert again.source.base_revision() == OLD
    assert torch.equal(first_embedding(build_bi_encoder(again)), first_embedding(built))
    saved = made.saved_as(folder, dtype="float32")
    assert (saved.source.base_location(), saved.source.base_revision()) == ("some/base", OLD)
    with pytest.raises(UserError, match="was trained on"):
        check_base(str(folder), "some/base", revision=NEW)


def test_a_new_adapter_remembers_the_revision_of_its_base(
    hub: tuple[Path, Path], tmp_path: Path
) -> None:
    lora = LoRA(r=2, alpha=4, dropout=0.0, target_modules=["q_proj"])
    built = build_bi_encoder(spec("some/base", revision="v1", adapter=lora))
    built.backbone.save_pretrained(tmp_path / "new")
    assert spec(tmp_path / "new").source.base_revision() == "v1"


def test_a_base_that_is_not_named_must_be_given(base: Path, adapter: Path) -> None:
    edit_config(adapter, base_model_name_or_path=None)
    with pytest.raises(UserError, match=r"adapter_config\.json: no base_model.*model\.base_path="):
        build_bi_encoder(spec(adapter))
    build_bi_encoder(spec(adapter, base_path=str(base)))


def test_an_adapter_of_another_base_is_refused_before_its_weights_load(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = base_folder(tmp_path / "other", num_hidden_layers=1)

    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("the weights were loaded")

    monkeypatch.setattr(building, "load_backbone", load)
    made = spec(adapter, base_path=str(other))
    for ask in (lambda: build_bi_encoder(made), lambda: check_model(made, is_trained=False)):
        with pytest.raises(UserError, match=r"belong to no layer of Qwen2Model.*layers\.1"):
            ask()


def test_an_adapter_of_heads_counts_what_it_trains(adapter: Path) -> None:
    made = spec(adapter)
    built = build_bi_encoder(made)
    trained = sum(p.numel() for p in built.parameters() if p.requires_grad)
    assert trained_part(made, outline(made.source.backbone_config())).num_parameters == trained
