"""The factory says where weights come from, and is cheap until it builds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.models import letter_tokenizer, tiny_folder, tiny_qwen
from quarry.errors import MissingPathError, UserError
from quarry.models.adapters.full import FullFineTuning
from quarry.models.factory import BiEncoderFactory
from quarry.models.pooling.mean import Mean


class CountingReplica:
    """Makes a folder, and counts how often it is asked to."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.num_calls = 0

    def folder(self) -> Path:
        self.num_calls += 1
        return tiny_folder(self.target)


def factory(**more: Any) -> BiEncoderFactory:
    settings: dict[str, Any] = {
        "path": None,
        "revision": None,
        "replica": None,
        "pooling": Mean(),
        "adapter": FullFineTuning(),
        "is_causal": False,
        "is_normalized": False,
        "dtype": "float32",
        "has_gradient_checkpointing": False,
        "has_trusted_code": False,
    }
    return BiEncoderFactory(**(settings | more))


def test_a_path_is_built_with_all_its_parts(tmp_path: Path) -> None:
    built = factory(path=str(tiny_folder(tmp_path))).build()
    reference = tiny_qwen().state_dict()
    weights = built.backbone.state_dict()
    assert weights.keys() == reference.keys()
    assert all(torch.equal(weights[name], reference[name]) for name in reference)
    assert all(parameter.requires_grad for parameter in built.parameters())
    assert (built.is_causal, built.is_normalized) == (False, False)
    assert isinstance(built.pooling, Mean)


def test_the_tokenizer_lies_beside_the_weights(tmp_path: Path) -> None:
    loaded = factory(path=str(tiny_folder(tmp_path))).load_tokenizer()
    assert loaded.get_vocab() == letter_tokenizer().get_vocab()
    assert loaded.eos_token_id == letter_tokenizer().eos_token_id


def test_without_a_path_the_replica_is_made_and_only_when_needed(tmp_path: Path) -> None:
    replica = CountingReplica(tmp_path / "made")
    made = factory(replica=replica)
    assert replica.num_calls == 0
    assert made.source() == str(tmp_path / "made")
    assert made.build().embedding_dim == 32


def test_a_path_goes_before_the_replica(tmp_path: Path) -> None:
    replica = CountingReplica(tmp_path / "made")
    folder = tiny_folder(tmp_path / "given")
    assert factory(path=str(folder), replica=replica).source() == str(folder)
    assert replica.num_calls == 0


@pytest.mark.parametrize("ask", ["source", "build", "load_tokenizer"])
def test_no_path_and_no_replica(ask: str) -> None:
    with pytest.raises(MissingPathError, match=r"model\.path is not set.*model=qwen-tiny"):
        getattr(factory(), ask)()


@pytest.mark.parametrize("ask", ["source", "build", "load_tokenizer"])
def test_a_path_that_is_not_there(ask: str, tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match="no such folder"):
        getattr(factory(path=str(tmp_path / "no")), ask)()


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)],
)
def test_dtypes(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    built = factory(path=str(tiny_folder(tmp_path)), dtype=name).build()
    assert {parameter.dtype for parameter in built.parameters()} == {dtype}


def test_a_wrong_dtype_is_refused_at_once() -> None:
    with pytest.raises(UserError, match=r"model\.dtype=int8.*float32, bfloat16, float16"):
        factory(dtype="int8")
