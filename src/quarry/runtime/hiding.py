"""Hide secrets in what this process prints and logs, and in the errors that it raises."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from quarry.runtime.secret_values import (
    remember_arguments,
    remember_environment,
    scrub_argument,
    without_secrets,
)


class HidingStream:
    """Text stream that passes everything on, secrets hidden."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)

    def write(self, text: str) -> int:
        """Write a text; a secret that two calls share is not recognized."""
        self._stream.write(without_secrets(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)


class HidingFormatter(logging.Formatter):
    """Formatter of log lines and their tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


def hide_secrets_of_process() -> None:
    """Hide the secrets of the command line and the environment in standard output and error.

    What others write there is hidden, too: Hydra prints all overrides of a failed command, and
    Python prints tracebacks.
    """
    remember_arguments(sys.argv[1:])
    remember_environment()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, HidingStream):
            setattr(sys, name, HidingStream(stream))


@contextlib.contextmanager
def hides_secrets_in_errors() -> Iterator[None]:
    """Hide secrets in the messages of exceptions that leave the block, and of their causes."""
    try:
        yield
    except BaseException as error:
        for one in _chain(error):
            _hide_in(one)
        raise


@contextlib.contextmanager
def hidden_arguments() -> Iterator[None]:
    """Hide secrets in `sys.argv` inside the block, for libraries that store the command line."""
    arguments = sys.argv
    sys.argv = [arguments[0], *map(scrub_argument, arguments[1:])] if arguments else arguments
    try:
        yield
    finally:
        sys.argv = arguments


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    open_ones: list[BaseException | None] = [error]
    while open_ones:
        one = open_ones.pop()
        if one is not None and one not in found:
            found.append(one)
            open_ones += [one.__cause__, one.__context__]
    return found


def _hide_in(error: BaseException) -> None:
    with contextlib.suppress(AttributeError, TypeError, ValueError):
        args = tuple(without_secrets(a) if isinstance(a, str) else a for a in error.args)
        if args != error.args:
            error.args = args
        for name in ("filename", "filename2"):
            if isinstance(getattr(error, name, None), str):
                setattr(error, name, without_secrets(getattr(error, name)))
        notes = getattr(error, "__notes__", None)
        if notes:
            error.__notes__ = [without_secrets(str(note)) for note in notes]
