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
    config = read_stored_config(file, trusted=())
    assert config.model.gradient_checkpointing is True
    assert "has_gradient_checkpointing" not in config.model
    config.merge_with({"paths": {"run_dir": "here"}})
    assert config.model.path == "here/model", "interpolations are left to who reads it"


def test_keys_that_an_earlier_version_did_not_have_get_their_defaults(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("evaluation:\n  top_k: 7\n  before_training: false\n", encoding="utf-8")
    evaluation = read_stored_config(file, trusted=()).evaluation
    assert (evaluation.top_k, evaluation.before_training) == (7, False)
    assert (evaluation.corpus_on_disk, evaluation.corpus_dtype) == ("auto", "float32")
    assert "every_n_steps" not in evaluation, "what has no default is not made up"


def test_a_file_without_a_configuration_is_named(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("- 1\n", encoding="utf-8")
    with pytest.raises(UserError, match="holds no configuration"):
        read_stored_config(file, trusted=())


def test_what_the_file_trusts_is_replaced_by_what_the_call_trusts(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("trusted_packages: [joblib]\nloss:\n  _target_: torch.optim.RMSprop\n")
    with pytest.raises(UserError, match="RMSprop"):
        read_stored_config(file, trusted=())
    assert read_stored_config(file, trusted=["torch.optim"]).trusted_packages == ["torch.optim"]


def test_a_file_that_is_nested_deeply_or_huge_is_named(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("a: " + "[" * 500 + "]" * 500, encoding="utf-8")
    with pytest.raises(UserError, match=r"config\.yaml: no configuration"):
        read_stored_config(file, trusted=())
    file.write_bytes(b"#" * (10 * 2**20 + 1))
    with pytest.raises(UserError, match="larger than"):
        read_stored_config(file, trusted=())


def test_aliases_that_multiply_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    levels = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    file.write_text("\n".join(["a0: &a0 [x, x]", *levels]), encoding="utf-8")
    with pytest.raises(UserError, match="aliases"):
        read_stored_config(file, trusted=())
