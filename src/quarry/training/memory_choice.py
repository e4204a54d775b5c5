"""Hold the memory settings of a training step: gradient checkpointing and GradCache chunks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryChoice:
    """The memory settings of a training step.

    Attributes:
        gradient_checkpointing: False, "selective" or True.
        grad_cache_chunk_tokens: tokens in one forward pass; None: a contrastive batch in one pass.
    """

    gradient_checkpointing: bool | str
    grad_cache_chunk_tokens: int | None

    @property
    def overrides(self) -> tuple[str, ...]:
        """Return the command-line overrides of this choice."""
        chunk = self.grad_cache_chunk_tokens
        return (
            f"model.gradient_checkpointing={str(self.gradient_checkpointing).lower()}",
            f"data.grad_cache_chunk_tokens={'null' if chunk is None else chunk}",
        )
