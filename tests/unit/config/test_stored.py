from __future__ import annotations

from pathlib import Path

import pytest

from quarry.config.stored import read_stored_config
from quarry.errors import UserError


def test_an_earlier_version_is_read_with_the_names_of_today(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "model:\n  has_gradient_checkpointing: true\n  path: ${paths.run_dir}/model\n",
        encoding="utf-8",
    )
    config = read_stored_config(file)
    assert config.model.gradient_checkpointing is True
    assert "has_gradient_checkpointing" not in config.model
    config.merge_with({"paths": {"run_dir": "here"}})
    assert config.model.path == "here/model", "interpolations are left to who reads it"


def test_a_file_without_a_configuration_is_named(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("- 1\n", encoding="utf-8")
    with pytest.raises(UserError, match="holds no configuration"):
        read_stored_config(file)
