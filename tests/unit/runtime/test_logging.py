from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from quarry.runtime.logging import logs_to, quiet_libraries


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.INFO)
    yield logger
    logger.setLevel(before)


def test_lines_of_every_logger_reach_the_file_while_the_run_lasts(
    tmp_path: Path, root: logging.Logger
) -> None:
    handlers = list(root.handlers)
    with logs_to(tmp_path / "run.log"):
        logging.getLogger("quarry.data").info("read %d lines", 3)
        logging.getLogger("elsewhere").warning("naïve")
    logging.getLogger("quarry.data").info("after the run")
    lines = (tmp_path / "run.log").read_text(encoding="utf-8").splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == [
        "INFO quarry.data: read 3 lines",
        "WARNING elsewhere: naïve",
    ]
    assert root.handlers == handlers


def test_the_file_is_closed_when_the_run_fails(tmp_path: Path, root: logging.Logger) -> None:
    handlers = list(root.handlers)

    def fail() -> None:
        with logs_to(tmp_path / "run.log"):
            logging.getLogger("quarry").info("so far so good")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert root.handlers == handlers
    assert "so far so good" in (tmp_path / "run.log").read_text()


def test_a_resumed_run_adds_to_its_log(tmp_path: Path, root: logging.Logger) -> None:
    for word in ("first", "second"):
        with logs_to(tmp_path / "run.log"):
            logging.getLogger("quarry").info(word)
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert [line.rsplit(" ", 1)[1] for line in lines] == ["first", "second"]


def test_libraries_are_quiet_and_choices_of_the_user_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_SILENT", "false")
    for name in ("TOKENIZERS_PARALLELISM", "DS_ACCELERATOR"):
        monkeypatch.setenv(name, "")  # so that what the call sets is taken back
        monkeypatch.delenv(name)
    monkeypatch.setattr(logging.getLogger("httpx"), "level", logging.NOTSET)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        quiet_libraries()
        warnings.warn("of a dependency", DeprecationWarning, stacklevel=1)
        warnings.warn("of ours", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in shown] == ["of ours"]
    assert os.environ["WANDB_SILENT"] == "false"
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
    assert not logging.getLogger("httpx").isEnabledFor(logging.INFO)
    assert logging.getLogger("httpx").isEnabledFor(logging.WARNING)
    assert logging.getLogger("quarry").level == logging.NOTSET
