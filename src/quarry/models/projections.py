"""Build and load linear layers after the pooling, which sentence-transformers calls Dense."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import linear

from quarry.errors import UserError
from quarry.models.weight_files import read_shapes, read_tensors

ACTIVATIONS: Mapping[str, type[nn.Module]] = {
    activation.__name__: activation
    for activation in (
        nn.Identity, nn.Tanh, nn.ReLU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.LeakyReLU, nn.ELU, nn.SELU,
        nn.Mish, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.ReLU6, nn.LogSigmoid,
    )
}  # fmt: skip
"""Name in torch.nn -> activation, built with its default arguments."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dense:
    """Configuration of one projection, and the file with its weights.

    Attributes:
        in_features, out_features: width of the input and of the output.
        bias: whether a bias is added.
        activation: a name of `ACTIVATIONS`, applied to the result.
        use_residual: add the input to the result, projected without bias and activation if the
            widths differ.
        weights: file with linear.weight, linear.bias and residual.weight.
        prefix: prefix of these names in the file.
    """

    in_features: int
    out_features: int
    bias: bool
    activation: str
    use_residual: bool
    weights: Path
    prefix: str = ""

    @property
    def num_parameters(self) -> int:
        matrix = self.in_features * self.out_features
        num_matrices = 1 + (self.use_residual and self.in_features != self.out_features)
        return num_matrices * matrix + self.bias * self.out_features

    def __str__(self) -> str:
        residual = ", with a residual" if self.use_residual else ""
        return f"{self.in_features} to {self.out_features}, {self.activation}{residual}"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the expected shape of each weight."""
        shape = (self.out_features, self.in_features)
        shapes: dict[str, tuple[int, ...]] = {"linear.weight": shape}
        if self.bias:
            shapes["linear.bias"] = shape[:1]
        if self.use_residual and self.in_features != self.out_features:
            shapes["residual.weight"] = shape
        return shapes

    def as_data(self) -> dict[str, Any]:
        """Return the configuration as plain data, for a model's contract."""
        names = ("in_features", "out_features", "bias", "activation", "use_residual")
        return {name: getattr(self, name) for name in names}


class _Linear(nn.Linear):
    """Linear layer that computes in its input's dtype; a module, so that ZeRO 3 gathers it."""

    def forward(self, input: Tensor) -> Tensor:
        dtype = input.dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        return linear(input, self.weight.to(dtype), bias)


class Projection(nn.Module):
    """A linear layer with an activation, [..., in_features] to [..., out_features].

    It computes in the dtype of its input, whatever the dtype of its weights.
    """

    def __init__(self, dense: Dense) -> None:
        super().__init__()
        self.linear = _Linear(dense.in_features, dense.out_features, bias=dense.bias)
        self.activation = ACTIVATIONS[dense.activation]()
        self.has_residual = dense.use_residual
        if dense.use_residual and dense.in_features != dense.out_features:
            self.residual = _Linear(dense.in_features, dense.out_features, bias=False)

    def forward(self, embeddings: Tensor) -> Tensor:
        projected: Tensor = self.activation(self.linear(embeddings))
        if not self.has_residual:
            return projected
        has_own = hasattr(self, "residual")
        return projected + (self.residual(embeddings) if has_own else embeddings)


def check_weights(chain: Sequence[Dense]) -> None:
    """Refuse weights that do not match their configuration, by names and shapes.

    Raises:
        UserError: weights cannot be read, are missing, unexpected, or of another shape.
    """
    for dense in chain:
        found = {
            name.removeprefix(dense.prefix): shape
            for name, shape in read_shapes(dense.weights).items()
            if name.startswith(dense.prefix)
        }
        expected = dense.shapes()
        differing = [n for n in {**expected, **found} if found.get(n) != expected.get(n)]
        if differing:
            parts = (
                f"{dense.prefix}{name} found {found.get(name, 'none')}, expected "
                f"{expected.get(name, 'none')}"
                for name in differing
            )
            raise UserError(
                f"{dense.weights}: the weights do not fit a Dense of {dense}: {'; '.join(parts)}. "
                "Fix: restore the file."
            )


def load_projections(chain: Sequence[Dense]) -> nn.Sequential:
    """Build the projections in float32 and load their weights, in order.

    Raises:
        UserError: see `check_weights`.
    """
    check_weights(chain)
    projections = nn.Sequential(*(Projection(dense) for dense in chain))
    for dense, projection in zip(chain, projections, strict=True):
        state = {
            name.removeprefix(dense.prefix): tensor.float()
            for name, tensor in read_tensors(dense.weights).items()
            if name.startswith(dense.prefix)
        }
        projection.load_state_dict(state)
    return projections
