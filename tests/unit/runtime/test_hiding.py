"""Secrets are hidden in what is printed, logged and raised."""

from __future__ import annotations

import io
import logging
import sys
import traceback
from pathlib import Path

import pytest

from quarry.errors import UserError
from quarry.runtime import secret_values
from quarry.runtime.hiding import (
    HidingStream,
    hidden_arguments,
    hide_secrets_of_process,
    hides_secrets_in_errors,
)
from quarry.runtime.logging import logs_to

URL = "https://me:hunter2@host"


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret_values, "_known", {})


def test_a_stream_hides_and_passes_on_everything_else() -> None:
    inner = io.StringIO()
    stream = HidingStream(inner)
    assert stream.write(f"{URL}\n") == len(URL) + 1
    stream.writelines([URL, "."])
    print("", URL, file=stream)
    assert inner.getvalue() == "https://me:***@host\nhttps://me:***@host. https://me:***@host\n"
    assert not stream.isatty()


def test_output_of_the_process_is_hidden_once(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = io.StringIO()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, inner)
    monkeypatch.setattr(sys, "argv", ["train.py", "hf_token=hunter2"])
    hide_secrets_of_process()
    hide_secrets_of_process()
    assert isinstance(sys.stderr, HidingStream)
    assert sys.stderr._stream is inner
    print("overrides: ['hf_token=hunter2']")
    assert inner.getvalue() == "overrides: ['hf_token=***']\n"


def fail_with_a_cause() -> None:
    try:
        raise FileNotFoundError(2, "No such file", URL)
    except FileNotFoundError as error:
        wrong = UserError(f"data.path={URL}: no such file")
        wrong.add_note(f"see {URL}")
        raise wrong from error


def test_an_error_its_causes_and_its_notes_are_hidden() -> None:
    with pytest.raises(UserError) as caught, hides_secrets_in_errors():
        fail_with_a_cause()
    assert str(caught.value) == "data.path=https://me:***@host: no such file"
    text = "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in text
    assert text.count("***") == 3


def test_the_log_file_is_hidden_with_its_tracebacks(tmp_path: Path) -> None:
    with logs_to(tmp_path / "run.log"):
        try:
            raise ValueError(URL)
        except ValueError:
            logging.getLogger("some.library").exception("reading %s", URL)
    text = (tmp_path / "run.log").read_text()
    assert "hunter2" not in text
    assert text.count("https://me:***@host") == 2


def test_the_command_line_is_hidden_inside_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["train.py", "hf_token=hunter2", f"data.path={URL}", "seed=1"]
    monkeypatch.setattr(sys, "argv", arguments)
    with hidden_arguments():
        assert sys.argv == ["train.py", "hf_token=***", "data.path=https://me:***@host", "seed=1"]
    assert sys.argv is arguments
