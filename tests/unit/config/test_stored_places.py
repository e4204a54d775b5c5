"""What a stored configuration writes lies in its run directory, and what it logs stays there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "config"))
from configurations import composed, opened

from quarry.config.stored_places import check_stored_places
from quarry.errors import ConfigurationError

CALLBACKS = (
    "default",
    "best_model",
    "early_stopping",
    "top_checkpoints",
    "refresh_negatives",
    "none",
)
LOGGERS = ("none", "csv", "tensorboard", "wandb", "mlflow", "many")


@pytest.fixture(scope="module", autouse=True)
def _conf() -> Iterator[None]:
    with opened():
        yield


def check(config: DictConfig, run: Path, *, has_own_loggers: bool = False) -> None:
    config.paths.run_dir = str(run)
    check_stored_places(
        config, run=run, source=run / "config.yaml", has_own_loggers=has_own_loggers
    )


def stored(**nodes: object) -> DictConfig:
    return OmegaConf.create({"paths": {"run_dir": None}, **nodes})


@pytest.mark.parametrize("callbacks", CALLBACKS)
def test_all_that_is_shipped_stays_in_the_run(
    callbacks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    check(composed("train", f"callbacks={callbacks}", "debug=profile"), tmp_path)
    logger = LOGGERS[CALLBACKS.index(callbacks)]
    check(composed("train", f"logger={logger}"), tmp_path)
    check(composed("train", f"logger={LOGGERS[-1]}"), tmp_path)


def test_a_corpus_is_read_as_training_data_are_and_may_lie_anywhere(tmp_path: Path) -> None:
    check(stored(callbacks={"refresh_negatives": {"corpus": "/data/corpus.jsonl"}}), tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("folder", "/home/me/papers"),
        ("folder", "papers"),
        ("folder", "~/papers"),
        ("folder", "${paths.run_dir}"),
        ("folder", "${paths.run_dir}/../other"),
        ("folder", "${paths.run_dir}/link/best"),
        ("path", "${oc.env:HOME}/last.ckpt"),
        ("filename", "../../x"),
        ("anything", "/etc/x"),
        ("address", "file:///home/me/papers"),
        ("address", "file:/home/me/papers"),
    ],
)
def test_a_path_outside_is_refused_by_its_key(key: str, value: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "link").symlink_to(tmp_path)
    config = stored(callbacks={"mine": {key: value}})
    with pytest.raises(ConfigurationError, match=rf"- callbacks\.mine\.{key}=.*outside of the run"):
        check(config, run, has_own_loggers=True)


@pytest.mark.parametrize(
    ("logger", "key"),
    [
        ({"settings": {"base_url": "https://evil"}}, "settings.base_url"),
        ({"settings": {"program": "x"}}, "settings.program"),
        ({"base_url": "evil"}, "base_url"),
        ({"tracking_uri": "https://evil"}, "tracking_uri"),
        ({"tracking_uri": "databricks"}, "tracking_uri"),
        ({"tracking_uri": "sqlite:////home/me/mlflow.db"}, "tracking_uri"),
        ({"artifact_location": "s3://evil"}, "artifact_location"),
        ({"save_dir": "/home/me"}, "save_dir"),
        ({"name": "../../papers"}, "name"),
    ],
)
def test_a_server_and_a_folder_elsewhere_are_refused_unless_the_command_names_the_loggers(
    logger: dict[str, object], key: str, tmp_path: Path
) -> None:
    config = stored(logger={"mine": logger})
    with pytest.raises(ConfigurationError, match=rf"- logger\.mine\.{key}="):
        check(config, tmp_path)
    check(config, tmp_path, has_own_loggers=True)


def test_the_users_own_environment_may_name_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mine")
    check(composed("train", "logger=mlflow"), tmp_path)
    check(stored(logger={"mine": {"tracking_uri": "sqlite:///${paths.run_dir}/m.db"}}), tmp_path)


def test_all_that_is_refused_is_listed_with_its_file(tmp_path: Path) -> None:
    config = stored(callbacks={"a": {"folder": "/x"}, "b": {"folder": "/y"}})
    with pytest.raises(ConfigurationError) as info:
        check(config, tmp_path)
    first, *lines = str(info.value).splitlines()
    assert first.startswith(f"{tmp_path / 'config.yaml'} names places")
    assert [line.partition("=")[0] for line in lines] == [
        "- callbacks.a.folder",
        "- callbacks.b.folder",
    ]
