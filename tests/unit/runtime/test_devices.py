"""A plan for a machine with GPUs sees one, and nothing else does."""

from __future__ import annotations

import pytest
import torch

from quarry.runtime.devices import has_gpu, planned_for_gpu


@pytest.mark.parametrize("is_there", [True, False])
def test_a_plan_has_a_gpu_and_afterwards_all_is_as_it_was(
    is_there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_there)
    assert has_gpu() is is_there
    with planned_for_gpu():
        assert has_gpu()
    assert has_gpu() is is_there
