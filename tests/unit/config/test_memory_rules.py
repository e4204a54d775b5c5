"""Rules for gradient checkpointing and chunks: what they may be, and what needs compiled layers."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from quarry.config.memory_rules import memory_violations

KEYS = {
    "chunk": "data.grad_cache_chunk_tokens",
    "checkpointing": "model.gradient_checkpointing",
}


def found(
    *,
    chunk: Any = "auto",
    checkpointing: Any = "auto",
    compile: bool | str = "auto",
    zero: int | None = None,
) -> list[str]:
    strategy = (
        None
        if zero is None
        else {"_target_": "quarry.distributed.zero.ZeroStrategy", "stage": zero}
    )
    config = OmegaConf.create(
        {
            "data": {"grad_cache_chunk_tokens": chunk},
            "model": {"gradient_checkpointing": checkpointing, "compile": compile},
            "trainer": {"strategy": strategy},
        }
    )
    return list(memory_violations(config))


@pytest.mark.parametrize("chunk", ["auto", None, 1, 24_576])
@pytest.mark.parametrize("checkpointing", ["auto", True, False, "selective"])
def test_what_may_be(chunk: Any, checkpointing: Any) -> None:
    assert found(chunk=chunk, checkpointing=checkpointing) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("chunk", value) for value in (0, -1, True, False, 2048.0, "none", "2048", [2048])),
        *(("checkpointing", value) for value in (1, 0, 1.0, None, "full", "true", [True])),
    ],
)
def test_other_values_are_refused_with_what_is_allowed(key: str, value: Any) -> None:
    (violation,) = found(**{key: value})
    assert violation.startswith(f"{KEYS[key]}={value}: ")
    assert "auto" in violation
    assert ("selective" if key == "checkpointing" else "null") in violation


def test_both_are_reported_at_once() -> None:
    assert len(found(chunk=0, checkpointing="full")) == 2


@pytest.mark.parametrize(
    ("more", "fact"), [({"compile": False}, "model.compile=false"), ({"zero": 3}, "ZeRO 3")]
)
def test_selective_needs_layers_that_are_compiled(more: dict[str, Any], fact: str) -> None:
    (violation,) = found(checkpointing="selective", **more)
    assert fact in violation
    assert "Fix: model.gradient_checkpointing=true" in violation
    for other in ("auto", True, False):
        assert found(checkpointing=other, **more) == []


def test_selective_goes_with_other_stages() -> None:
    assert found(checkpointing="selective", zero=2) == []


def test_what_an_earlier_version_wrote_has_neither_key() -> None:
    config = OmegaConf.create({"data": {}, "model": {}, "trainer": {}})
    assert list(memory_violations(config)) == []
