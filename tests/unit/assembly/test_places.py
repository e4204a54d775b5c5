"""The folders of a run are checked before anything is computed."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from helpers.disks import fill, read_only, small_disk
from quarry.assembly.places import check_places, places_of
from quarry.errors import UserError


def a_config(folder: Path, **paths: Path) -> DictConfig:
    made = {name: str(folder / name) for name in ("run_dir", "cache_dir", "store_dir")}
    return OmegaConf.create({"paths": made | {k: str(v) for k, v in paths.items()}, "run": None})


def test_places_have_the_keys_that_move_them(tmp_path: Path) -> None:
    config = a_config(tmp_path)
    remedies = {one.path.name: one.remedy for one in places_of(config)}
    assert remedies["run_dir"].startswith("hydra.run.dir=DIR")
    assert remedies["cache_dir"].startswith("paths.cache_dir=DIR")
    assert remedies["store_dir"].startswith("paths.store_dir=DIR")
    config.run = str(tmp_path / "old")
    assert places_of(config)[0].path == tmp_path / "old"
    config.task = {"_target_": "quarry.tasks.resume.resume"}
    assert places_of(config)[0].remedy == "move the directory and resume it there: run=DIR"
    check_places(config)


@pytest.mark.parametrize("name", ["run_dir", "cache_dir"])
def test_a_full_disk_is_said_at_once(tmp_path: Path, name: str) -> None:
    with small_disk(tmp_path / "small", num_bytes=2**21) as disk:
        file = fill(disk, leaving=0)
        with pytest.raises(UserError, match="free"):
            check_places(a_config(tmp_path, **{name: disk / "own"}))
        file.unlink()
        check_places(a_config(tmp_path, **{name: disk / "own"}))


def test_a_cold_cache_that_cannot_be_written_to_is_refused_and_a_warm_one_is_not(
    tmp_path: Path,
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    with read_only(cache), pytest.raises(UserError, match="is empty, so nothing can be read"):
        check_places(a_config(tmp_path, cache_dir=cache))
    (cache / "corpus-1.arrow").touch()
    with read_only(cache):
        check_places(a_config(tmp_path, cache_dir=cache))
