"""Projections against numbers made by hand, and weights that do not fit what is stated of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from quarry.errors import UserError
from quarry.models.projections import ACTIVATIONS, Dense, check_weights, load_projections

WEIGHTS = {
    "linear.weight": torch.tensor([[1.0, 2, 0], [0, -1, 1]]),
    "linear.bias": torch.tensor([0.5, -1]),
    "residual.weight": torch.tensor([[1.0, 0, 0], [0, 0, 2]]),
}


def stated(folder: Path, *names: str, **changes: object) -> Dense:
    """A Dense of three to two without activation, and a file with the weights of these names."""
    file = folder / "model.safetensors"
    save_file({name: WEIGHTS[name] for name in names}, file)
    dense = Dense(
        in_features=3, out_features=2, bias="linear.bias" in names, activation="Identity",
        use_residual="residual.weight" in names, weights=file,
    )  # fmt: skip
    return replace(dense, **changes)  # type: ignore[arg-type]


def projected(dense: Dense, *row: float) -> list[float]:
    with torch.no_grad():
        found: Tensor = load_projections([dense])(torch.tensor([row], dtype=torch.float32))
    return found[0].tolist()


def test_a_linear_layer(tmp_path: Path) -> None:
    assert projected(stated(tmp_path, "linear.weight"), 1, 2, 4) == [5, 2]


def test_bias_and_activation(tmp_path: Path) -> None:
    dense = stated(tmp_path, "linear.weight", "linear.bias", activation="ReLU")
    assert projected(dense, 1, 2, 4) == [5.5, 1]
    assert projected(dense, 1, 2, 2) == [5.5, 0]


def test_a_residual_of_another_width_has_weights_and_comes_after_the_activation(
    tmp_path: Path,
) -> None:
    dense = stated(tmp_path, "linear.weight", "residual.weight", activation="ReLU")
    assert projected(dense, 1, 2, 1) == [5 + 1, 0 + 2]


def test_a_residual_of_the_same_width_is_the_input(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"linear.weight": torch.tensor([[0.0, 1], [1, 0]])}, file)
    dense = Dense(
        in_features=2, out_features=2, bias=False, activation="Identity", use_residual=True,
        weights=file,
    )  # fmt: skip
    assert projected(dense, 3, 5) == [8, 8]


def test_a_chain_has_its_weights_by_prefix_and_computes_in_the_dtype_of_its_input(
    tmp_path: Path,
) -> None:
    save_file(
        {
            "0.linear.weight": torch.ones(2, 1),
            "1.linear.weight": torch.tensor([[1.0, 2]]).to(torch.float16),
        },
        file := tmp_path / "all.safetensors",
    )
    first = Dense(
        in_features=1, out_features=2, bias=False, activation="Identity", use_residual=False,
        weights=file, prefix="0.",
    )  # fmt: skip
    second = replace(first, in_features=2, out_features=1, prefix="1.")
    chain = load_projections([first, second])
    assert {p.dtype for p in chain.parameters()} == {torch.float32}
    found = chain(torch.tensor([[2.0]], dtype=torch.bfloat16))
    assert found.dtype == torch.bfloat16
    assert found.tolist() == [[6]]


def test_no_projections_change_nothing() -> None:
    embeddings = torch.randn(2, 3)
    assert load_projections([])(embeddings) is embeddings


def test_each_activation_can_be_built() -> None:
    for activation in ACTIVATIONS.values():
        assert activation()(torch.zeros(2)).shape == (2,)


@pytest.mark.parametrize(
    ("names", "changes", "facts"),
    [
        (["linear.weight"], {"out_features": 4}, [r"found \(2, 3\)", r"expected \(4, 3\)"]),
        (["linear.weight"], {"bias": True}, ["linear.bias found none", r"expected \(2,\)"]),
        (["linear.weight", "linear.bias"], {"bias": False}, ["linear.bias", "expected none"]),
        (["linear.weight"], {"use_residual": True}, ["residual.weight found none"]),
        (["linear.weight"], {"prefix": "1."}, ["1.linear.weight found none"]),
        (["linear.bias"], {}, ["linear.weight found none"]),
    ],
)
@pytest.mark.parametrize("check", [check_weights, load_projections])
def test_weights_that_do_not_fit_are_refused(
    tmp_path: Path,
    names: list[str],
    changes: dict[str, object],
    facts: list[str],
    check: object,
) -> None:
    dense = stated(tmp_path, *names, **changes)
    for fact in facts:
        with pytest.raises(UserError, match=rf"model\.safetensors: .*Dense of 3 to .*{fact}"):
            check([dense])  # type: ignore[operator]


def test_weights_that_fit_are_not_refused(tmp_path: Path) -> None:
    check_weights([stated(tmp_path, *WEIGHTS)])
    same = stated(tmp_path, "linear.weight", use_residual=True)
    save_file({"linear.weight": torch.ones(3, 3)}, same.weights)
    check_weights([replace(same, out_features=3)])  # a residual without weights


def test_a_dense_is_told_in_a_line(tmp_path: Path) -> None:
    dense = stated(tmp_path, "linear.weight")
    assert str(dense) == "3 to 2, Identity"
    assert str(replace(dense, use_residual=True)) == "3 to 2, Identity, with a residual"
