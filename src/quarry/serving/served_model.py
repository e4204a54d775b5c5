"""Describe the model that a server answers for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quarry.serving.api_errors import ApiError
from quarry.types import Role


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedModel:
    """The model as clients see it.

    Attributes:
        name: in requests and responses.
        dim: width of the embeddings.
        max_lengths: role -> tokens that are encoded; longer texts are truncated.
        created: time of the server's start, seconds since 1970.
    """

    name: str
    dim: int
    max_lengths: Mapping[Role, int]
    created: int

    def check_name(self, name: object) -> None:
        """Refuse the name of another model; None: the client names none."""
        if name is not None and name != self.name:
            shown = name[:80] if isinstance(name, str) else type(name).__name__
            raise ApiError(
                404,
                f"model={shown}: not served here (served: {self.name}). Fix: model={self.name}",
                code="model_not_found",
                param="model",
            )

    def as_data(self) -> dict[str, object]:
        """Return the entry of `/v1/models`."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "quarry",
            "dimensions": self.dim,
            "max_tokens": dict(self.max_lengths),
        }
