from __future__ import annotations

from pathlib import Path

import pytest

from quarry.errors import UserError
from quarry.training.stored_checkpoint import read_checkpoint


@pytest.mark.parametrize("has_previous", [True, False])
def test_the_message_of_a_damaged_checkpoint_names_the_one_before(
    tmp_path: Path, has_previous: bool
) -> None:
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    last.write_bytes(b"half")
    if has_previous:
        previous.touch()
    with pytest.raises(UserError) as caught:
        read_checkpoint(last)
    assert (f"&& mv {previous} {last}" in str(caught.value)) == has_previous
    assert ("in a new run directory" in str(caught.value)) != has_previous
