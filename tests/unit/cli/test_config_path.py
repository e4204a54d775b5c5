"""A relative `--config-path` is a folder: of the working directory, else beside the script."""

from __future__ import annotations

from pathlib import Path

import pytest

from quarry.cli.config_path import with_absolute_config_path


@pytest.mark.parametrize("form", [["--config-path", "{}"], ["--config-path={}"], ["-cp", "{}"]])
def test_a_folder_is_found_here_or_beside_the_script(
    form: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, script = tmp_path / "here", tmp_path / "checkout" / "train.py"
    (here / "own").mkdir(parents=True)
    (script.parent / "own").mkdir(parents=True)
    (script.parent / "other").mkdir()
    monkeypatch.chdir(here)

    def read(folder: str) -> list[str]:
        arguments = [part.format(folder) for part in form]
        return with_absolute_config_path([*arguments, "seed=1"], script=script)

    def expected(folder: Path | str) -> list[str]:
        return [*(part.format(folder) for part in form), "seed=1"]

    assert read("own") == expected(here / "own")
    assert read("other") == expected(script.parent / "other")
    assert read("nowhere") == expected(here / "nowhere")  # Hydra says that it is not there
    assert read(str(tmp_path)) == expected(tmp_path)
    assert read("pkg://x.conf") == expected("pkg://x.conf")


def test_any_other_command_line_is_left_alone() -> None:
    arguments = ["--config-dir", "own", "run=a=b", "--config-path"]
    assert with_absolute_config_path(arguments, script=Path("train.py")) == arguments
