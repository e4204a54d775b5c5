"""modules.json and the files of its modules, as versions of sentence-transformers write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quarry.errors import UserError
from quarry.models.folders.modules import (
    ModelFolder,
    Module,
    check_widths,
    read_dense,
    read_modules,
    read_pooling,
)

POOLING = Module(kind="Pooling", path="1_Pooling")
DENSE = Module(kind="Dense", path="2_Dense")
OLD = "sentence_transformers.models"


def written(folder: Path, **files: Any) -> ModelFolder:
    """Write `modules`, `pooling` and `dense`, where they are given."""
    names = {
        "modules": "modules.json",
        "pooling": "1_Pooling/config.json",
        "dense": "2_Dense/config.json",
    }
    for key, content in files.items():
        file = folder / names[key]
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
    return ModelFolder(source=str(folder))


def listed(*types: str) -> list[dict[str, Any]]:
    return [
        {"idx": i, "name": str(i), "path": f"{i}_X" if i else "", "type": t}
        for i, t in enumerate(types)
    ]


@pytest.mark.parametrize(
    "types",
    [
        (f"{OLD}.Transformer", f"{OLD}.Pooling", f"{OLD}.Dense", f"{OLD}.Normalize"),
        (
            "sentence_transformers.base.modules.transformer.Transformer",
            "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
            "sentence_transformers.base.modules.dense.Dense",
            "sentence_transformers.base.modules.normalize.Normalize",
        ),
    ],
)
def test_modules_of_old_and_new_versions(tmp_path: Path, types: tuple[str, ...]) -> None:
    assert read_modules(written(tmp_path, modules=listed(*types))) == [
        Module(kind="Transformer", path=""),
        Module(kind="Pooling", path="1_X"),
        Module(kind="Dense", path="2_X"),
        Module(kind="Normalize", path="3_X"),
    ]


def test_a_folder_without_the_list_has_no_modules(tmp_path: Path) -> None:
    assert read_modules(ModelFolder(source=str(tmp_path))) is None


@pytest.mark.parametrize(
    "kinds",
    [
        ("Pooling", "Transformer"),
        ("Transformer",),
        ("Transformer", "Pooling", "Normalize", "Dense"),
        ("Transformer", "Pooling", "Normalize", "Normalize"),
        ("Transformer", "Transformer", "Pooling"),
    ],
)
def test_another_order_is_refused(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    folder = written(tmp_path, modules=listed(*(f"{OLD}.{kind}" for kind in kinds)))
    with pytest.raises(UserError, match=rf"modules\.json: .*{', '.join(kinds)};.*then any number"):
        read_modules(folder)


@pytest.mark.parametrize("type_", ["custom_st.Transformer", "my.sentence_transformers.Transformer"])
def test_a_class_of_another_package_is_none_of_the_librarys(tmp_path: Path, type_: str) -> None:
    folder = written(tmp_path, modules=listed(type_, f"{OLD}.Pooling"))
    with pytest.raises(UserError, match=rf"modules\.json: .*{type_}.*Transformer, Pooling"):
        read_modules(folder)


def flags(*names: str) -> dict[str, bool]:
    """As versions before 6 wrote them, all of them."""
    known = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    known += ("weightedmean_tokens", "lasttoken")
    return {f"pooling_mode_{name}": name in names for name in known}


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"pooling_mode": "cls"}, "cls.Cls"),
        ({"pooling_mode": ["max"]}, "max.Max"),
        ({"pooling_mode": "mean_sqrt_len_tokens"}, "mean_sqrt_len.MeanSqrtLen"),
        ({}, "mean.Mean"),
        (flags(), "mean.Mean"),
        (flags("cls_token"), "cls.Cls"),
        (flags("max_tokens"), "max.Max"),
        (flags("mean_tokens"), "mean.Mean"),
        (flags("mean_sqrt_len_tokens"), "mean_sqrt_len.MeanSqrtLen"),
        (flags("weightedmean_tokens"), "weighted_mean.WeightedMean"),
        (flags("lasttoken"), "last_token.LastToken"),
        (flags("cls_token") | {"pooling_mode": "cls"}, "cls.Cls"),
    ],
)
def test_poolings(tmp_path: Path, config: dict[str, Any], name: str) -> None:
    node, width, file = read_pooling(written(tmp_path, pooling=config), POOLING)
    assert node["_target_"] == f"quarry.models.pooling.{name}"
    assert width is None
    assert file == "1_Pooling/config.json"


@pytest.mark.parametrize("key", ["word_embedding_dimension", "embedding_dimension"])
def test_the_width_of_a_pooling_has_a_name_of_each_version(tmp_path: Path, key: str) -> None:
    assert read_pooling(written(tmp_path, pooling={key: 384}), POOLING)[1] == 384


def test_the_prompt_is_left_out_where_the_file_says_so(tmp_path: Path) -> None:
    stated = {"pooling_mode": "mean", "include_prompt": False}
    node, _, _ = read_pooling(written(tmp_path, pooling=stated), POOLING)
    assert node["include_prompt"] is False
    # the last token is never one of the prompt
    stated["pooling_mode"] = "lasttoken"
    node, _, _ = read_pooling(written(tmp_path, pooling=stated), POOLING)
    assert "include_prompt" not in node


def test_a_flag_that_the_mode_contradicts_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path, pooling=flags("cls_token") | {"pooling_mode": "mean"})
    with pytest.raises(UserError, match=r"1_Pooling/config\.json: .*'mean'.*cls_token"):
        read_pooling(folder, POOLING)


def dense(**changes: Any) -> dict[str, Any]:
    config = {
        "in_features": 8,
        "out_features": 4,
        "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
    }
    return {k: v for k, v in (config | changes).items() if v is not None}


def read(folder: Path, **changes: Any) -> Any:
    files = written(folder, dense=dense(**changes))
    (folder / "2_Dense" / "pytorch_model.bin").touch()
    return read_dense(files, DENSE)


def test_what_a_dense_states(tmp_path: Path) -> None:
    found = read(tmp_path, bias=False, use_residual=True)
    assert found.as_data() == {
        "in_features": 8,
        "out_features": 4,
        "bias": False,
        "activation": "Tanh",
        "use_residual": True,
    }
    assert found.weights == tmp_path / "2_Dense" / "pytorch_model.bin"


def test_what_a_dense_does_not_state_is_the_librarys_default(tmp_path: Path) -> None:
    found = read(tmp_path, bias=None, activation_function=None)
    assert (found.bias, found.activation, found.use_residual) == (True, "Tanh", False)


def test_safetensors_come_before_a_pickle(tmp_path: Path) -> None:
    (tmp_path / "2_Dense").mkdir()
    (tmp_path / "2_Dense" / "model.safetensors").touch()
    assert read(tmp_path).weights.name == "model.safetensors"


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("in_features", 0, "1 or more"),
        ("in_features", True, "1 or more"),
        ("out_features", "4", "1 or more"),
        ("bias", "no", "true or false"),
        ("use_residual", 1, "true or false"),
        ("module_output_name", "token_embeddings", "sentence_embedding"),
        ("module_input_name", ["sentence_embedding"], "sentence_embedding"),
        ("activation_function", "torch.nn.modules.activation.Softmax", "Identity, Tanh"),
        ("activation_function", "Tanh", "torch.nn"),
        ("activation_function", "os.system", "torch.nn"),
        ("activation_function", 3, "torch.nn"),
    ],
)
def test_what_a_dense_must_not_state(
    tmp_path: Path, key: str, value: object, expected: str
) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, **{key: value})
    message = str(caught.value)
    assert "2_Dense/config.json" in message
    assert f"{key}={value!r}" in message
    assert expected in message


def test_a_dense_follows_in_width_what_comes_before(tmp_path: Path) -> None:
    folder = ModelFolder(source=str(tmp_path))
    first = read(tmp_path, in_features=8, out_features=4)
    second = read(tmp_path, in_features=4, out_features=2)
    check_widths(folder, [first, second], width=8)
    check_widths(folder, [first, second], width=None)
    with pytest.raises(UserError, match=r"in_features=8, and the pooling gives .* 6"):
        check_widths(folder, [first], width=6)
    with pytest.raises(UserError, match=r"in_features=8, and Dense 1 gives .* 4"):
        check_widths(folder, [first, first], width=8)
