"""Configurations are found in a checkout and in an installed package."""

from __future__ import annotations

from pathlib import Path

from quarry.runtime.shipped_files import conf_dir, shipped, studies_dir

ROOT = Path(__file__).resolve().parents[3]


def test_a_checkout_has_them_at_its_top(tmp_path: Path) -> None:
    package = tmp_path / "src" / "quarry"
    package.mkdir(parents=True)
    assert shipped("conf", package=package) == tmp_path / "conf"
    assert shipped("docs/x.json", package=package) == tmp_path / "docs" / "x.json"


def test_an_installed_package_has_them_inside(tmp_path: Path) -> None:
    package = tmp_path / "lib" / "site-packages" / "quarry"
    (package / "conf").mkdir(parents=True)
    (tmp_path / "lib" / "conf").mkdir()  # of somebody else
    assert shipped("conf", package=package) == package / "conf"


def test_here_they_are_those_of_this_checkout() -> None:
    assert (conf_dir(), studies_dir()) == (ROOT / "conf", ROOT / "sweeps")
    assert (conf_dir() / "train.yaml").is_file()
    assert (studies_dir() / "study" / "tiny.yaml").is_file()
    assert shipped("docs/performance.json").is_file()
