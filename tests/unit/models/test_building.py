"""A spec says where weights come from, and loads nothing until it is built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2Model

from helpers.models import letter_tokenizer, tiny_folder, tiny_qwen
from quarry.data.packing import pack
from quarry.errors import MissingPathError, UserError
from quarry.models import building, compilation
from quarry.models.adapters.full import FullFineTuning
from quarry.models.adapters.lora import LoRA
from quarry.models.building import build_bi_encoder, check_model
from quarry.models.memory import memory_need
from quarry.models.model_source import ModelSource
from quarry.models.model_spec import ModelSpec, model_spec
from quarry.models.pooling.mean import Mean
from quarry.models.remedies import CannotLoadError


class CountingReplica:
    """Makes a folder, and counts how often it is asked to."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.num_calls = 0

    def folder(self) -> Path:
        self.num_calls += 1
        return tiny_folder(self.target)


def spec(**more: Any) -> ModelSpec:
    settings: dict[str, Any] = {
        "path": None,
        "revision": None,
        "replica": None,
        "pooling": Mean(),
        "adapter": FullFineTuning(),
        "is_causal": False,
        "normalize": False,
        "dtype": "float32",
        "attention": "auto",
        "linear_precision": None,
        "compile": False,
        "gradient_checkpointing": False,
        "trust_remote_code": False,
    }
    return model_spec(**(settings | more))


def test_a_path_is_built_with_all_its_parts(tmp_path: Path) -> None:
    built = build_bi_encoder(spec(path=str(tiny_folder(tmp_path))))
    reference = tiny_qwen().state_dict()
    weights = built.backbone.state_dict()
    assert weights.keys() == reference.keys()
    assert all(torch.equal(weights[name], reference[name]) for name in reference)
    assert all(parameter.requires_grad for parameter in built.parameters())
    assert (built.is_causal, built.is_normalized) == (False, False)
    assert isinstance(built.pooling, Mean)


def test_the_tokenizer_lies_beside_the_weights(tmp_path: Path) -> None:
    loaded = spec(path=str(tiny_folder(tmp_path))).source.load_tokenizer()
    assert loaded.get_vocab() == letter_tokenizer().get_vocab()
    assert loaded.eos_token_id == letter_tokenizer().eos_token_id


def test_without_a_path_the_replica_is_made_and_only_when_needed(tmp_path: Path) -> None:
    replica = CountingReplica(tmp_path / "made")
    made = spec(replica=replica)
    assert replica.num_calls == 0
    assert made.source.location() == str(tmp_path / "made")
    assert build_bi_encoder(made).embedding_dim == 32


def test_a_path_goes_before_the_replica(tmp_path: Path) -> None:
    replica = CountingReplica(tmp_path / "made")
    folder = tiny_folder(tmp_path / "given")
    assert spec(path=str(folder), replica=replica).source.location() == str(folder)
    assert replica.num_calls == 0


ASKS: list[Callable[[ModelSpec], Any]] = [
    lambda asked: asked.source.location(),
    build_bi_encoder,
    lambda asked: asked.source.load_tokenizer(),
]


@pytest.mark.parametrize("ask", ASKS)
def test_no_path_and_no_replica(ask: Callable[[ModelSpec], Any]) -> None:
    with pytest.raises(MissingPathError, match=r"model\.path is not set.*model=qwen-tiny"):
        ask(spec())


@pytest.mark.parametrize("ask", ASKS)
def test_a_path_that_is_not_there(ask: Callable[[ModelSpec], Any], tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match="no such folder"):
        ask(spec(path=str(tmp_path / "no")))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)],
)
def test_dtypes(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    built = build_bi_encoder(spec(path=str(tiny_folder(tmp_path)), dtype=name))
    assert {parameter.dtype for parameter in built.parameters()} == {dtype}


def test_a_wrong_dtype_is_refused_at_once() -> None:
    with pytest.raises(UserError, match=r"model\.dtype=int8.*float32, bfloat16, float16"):
        spec(dtype="int8")


def config_folder(folder: Path, **more: int) -> Path:
    """A folder with the shape of a model and no weights."""
    Qwen2Config(**more).save_pretrained(folder)
    return folder


def test_a_model_that_cannot_fit_is_refused_before_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = config_folder(
        tmp_path, vocab_size=1000, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4,
    )  # fmt: skip
    num_parameters = sum(
        p.numel() for p in Qwen2Model(Qwen2Config.from_pretrained(folder)).parameters()
    )
    monkeypatch.setattr(
        "quarry.models.memory.available_memory", lambda **_: (num_parameters * 5, "this room")
    )
    tried = spec(path=str(folder), dtype="float32")
    check_model(tried, is_trained=False)  # four bytes each
    with pytest.raises(CannotLoadError, match=r"weights, gradients and optimizer.*this room has"):
        check_model(tried, is_trained=True)  # sixteen
    lora = LoRA(r=4, alpha=8, dropout=0.0, target_modules=["q_proj"])
    check_model(spec(path=str(folder), adapter=lora), is_trained=True)


def family(**more: Any) -> ModelSpec:
    hub_ids = {"1.5B": "nobody/no-1.5B", "7B": "nobody/no-7B", "72B": "nobody/no-72B"}
    settings = {"hub_ids": hub_ids, "hub_id": "nobody/no-7B", "size": "7B"}
    return spec(**(settings | {"replica": CountingReplica(Path("unused"))} | more))


def test_a_hub_that_cannot_be_reached_names_what_would_run() -> None:
    with pytest.raises(CannotLoadError, match=r"Cannot load the model of 'nobody/no-7B'") as caught:
        check_model(family(), is_trained=True)
    assert list(caught.value.remedies) == ["model.path=DIR", "model.size=tiny"]


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.9, "model.size=1.5B"), (0.1, "model.size=tiny"), (0.22, "model.size=1.5B")],
)
def test_the_largest_size_that_fits_is_proposed(
    share: float, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = config_folder(
        tmp_path, vocab_size=1000, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4,
    )  # fmt: skip
    need = memory_need(Qwen2Config.from_pretrained(folder), dtype=torch.float32).num_bytes
    monkeypatch.setattr(
        "quarry.models.memory.available_memory", lambda **_: (int(need * share), "here")
    )
    monkeypatch.setattr(ModelSource, "base_location", lambda self: str(folder))
    with pytest.raises(CannotLoadError) as caught:
        check_model(family(), is_trained=False)
    assert next(iter(caught.value.remedies)) == expected


def test_auto_is_full_precision_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    lora = LoRA(r=4, alpha=8, dropout=0.0, target_modules=["q_proj"])
    full, adapted = spec(dtype="auto"), spec(dtype="auto", adapter=lora)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert adapted.options.torch_dtype(is_trained=True) == torch.float32
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert adapted.options.torch_dtype(is_trained=True) == torch.bfloat16
    assert full.options.torch_dtype(is_trained=True) == torch.float32
    assert full.options.torch_dtype(is_trained=False) == torch.bfloat16


def test_nothing_is_trainable_in_a_model_for_evaluation(tmp_path: Path) -> None:
    lora = LoRA(r=4, alpha=8, dropout=0.0, target_modules=["q_proj"])
    built = build_bi_encoder(spec(path=str(tiny_folder(tmp_path)), adapter=lora), is_trained=False)
    assert not any(parameter.requires_grad for parameter in built.parameters())
    assert not any("lora" in name for name, _ in built.named_parameters())


def test_gradient_checkpointing_gives_the_same_gradients(tmp_path: Path) -> None:
    tokens = pack([[5, 6, 7, 8], [9], [3, 4]])
    gradients = []
    for has_checkpointing in (False, True):
        built = build_bi_encoder(
            spec(path=str(tiny_folder(tmp_path)), gradient_checkpointing=has_checkpointing)
        )
        built.train()(tokens).square().sum().backward()
        gradients.append([p.grad for p in built.parameters()])
        layer = built.backbone.layers[0]
        assert layer.gradient_checkpointing is has_checkpointing
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_a_spec_of_a_saved_model_is_plain_and_another_object(tmp_path: Path) -> None:
    first = spec(path="some/model", revision="v1", linear_precision="fp8", compile=True)
    saved = first.saved_as(tmp_path, dtype="bfloat16")
    assert (saved.source.path, saved.options.dtype) == (str(tmp_path), "bfloat16")
    assert (saved.options.linear_precision, saved.options.compile) == (None, False)
    assert (first.options.linear_precision, first.options.compile) == ("fp8", True)


@pytest.mark.parametrize(
    ("compile", "num_texts", "on", "expected"),
    [
        (True, 0, "cpu", [False]),
        (False, 10**6, "cuda", []),
        ("auto", 10**6, "cpu", []),
        ("auto", 10**6, "cuda", [False]),
        ("auto", 10, "cuda", []),
    ],
)
def test_layers_are_compiled_where_they_are_asked_to_be_or_it_pays(
    compile: bool | str,
    num_texts: int,
    on: str,
    expected: list[bool],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[bool | str] = []
    monkeypatch.setattr(
        building,
        "compile_layers",
        lambda layers, gradient_checkpointing: asked.append(gradient_checkpointing),
    )
    repays = compilation.repays_compilation
    monkeypatch.setattr(
        building,
        "repays_compilation",
        lambda num_texts, device: repays(num_texts, device=torch.device(on)),
    )
    folder = str(tiny_folder(tmp_path))
    build_bi_encoder(spec(path=folder, compile=compile), num_texts=num_texts)
    assert asked == expected


@pytest.mark.parametrize("num_texts", [10, 10**6])
@pytest.mark.parametrize("compile", ["auto", False])
def test_selective_checkpointing_of_plain_layers_is_full_and_said_once(
    compile: bool | str, num_texts: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """On a CPU no layers are compiled that are not asked to be, however many texts there are."""
    made = spec(
        path=str(tiny_folder(tmp_path)), compile=compile, gradient_checkpointing="selective"
    )
    built = build_bi_encoder(made, num_texts=num_texts)
    assert built.backbone.layers[0].gradient_checkpointing is True
    (warning,) = (each for each in caplog.messages if "checkpointing" in each)
    assert "model.gradient_checkpointing=selective" in warning
    assert "not compiled" in warning
    assert "in full" in warning


@pytest.mark.parametrize(
    ("compile", "checkpointing"), [(True, "selective"), (False, True), (False, False)]
)
def test_other_checkpointing_needs_no_word(
    compile: bool,
    checkpointing: bool | str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    monkeypatch.setattr(
        building,
        "compile_layers",
        lambda layers, gradient_checkpointing: asked.append(gradient_checkpointing),
    )
    made = spec(path=str(tiny_folder(tmp_path)), compile=compile)
    build_bi_encoder(made, gradient_checkpointing=checkpointing)
    assert asked == ([checkpointing] if compile else [])
    assert not any("checkpointing" in each for each in caplog.messages)
