"""What would run instead of a model that does not fit: also where sizes are names."""

from __future__ import annotations

import pytest

from quarry.models.remedies import remedies


@pytest.mark.parametrize(
    ("hub_ids", "size", "expected"),
    [
        ({"small": "a", "base": "b", "large": "c"}, "large", []),
        ({"1.5B": "a", "7B": "b"}, "7B", ["model.size=1.5B"]),
    ],
)
def test_sizes_that_are_names_have_no_order(
    hub_ids: dict[str, str], size: str, expected: list[str]
) -> None:
    found = remedies(size=size, hub_id=hub_ids[size], hub_ids=hub_ids, has_replica=False, share=0.5)
    assert list(found) == expected
