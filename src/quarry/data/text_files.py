"""Read a folder of text or code files, and count the files that are left out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from quarry.errors import UserError

MAX_FILE_BYTES = 2**24
"""Larger files are data, not text that somebody wrote."""

SKIPPED_FOLDERS = frozenset({"node_modules", "__pycache__", "venv", "site-packages"})
"""Folders of tools, beside hidden ones such as .git."""

NOT_READ = {
    "hidden": "hidden files and folders are left out",
    "tools": f"folders of tools ({', '.join(sorted(SKIPPED_FOLDERS))}) are left out",
    "links": "links are left out",
    "huge": f"files of more than {MAX_FILE_BYTES >> 20} MiB are left out",
    "binary": "binary files are left out",
    "undecodable": "files that are not UTF-8 are left out",
    "unreadable": "files or folders without permission to read are left out",
    "empty": "files without text are left out",
}
"""Why something is left out -> what a caveat says, after its number."""


def find_text_files(folder: Path, note: Callable[[str], None]) -> list[Path]:
    """Return the files in a folder and its folders that may be text, sorted by path.

    Args:
        note: called with a key of `NOT_READ` for each file or folder that is left out.

    Raises:
        UserError: the folder itself cannot be read.
    """
    found: list[Path] = []
    for file in walk(folder, note):
        if reason := _reason(file):
            note(reason)
        else:
            found.append(file)
    return sorted(found)


def walk(folder: Path, note: Callable[[str], None]) -> Iterator[Path]:
    """Yield all files in a folder and in its folders that are entered; arguments as above."""

    def failed(error: OSError) -> None:
        _unreadable(error, folder, note)

    for where, folders, files in os.walk(folder, onerror=failed):
        here = Path(where)
        folders[:] = sorted(name for name in folders if _is_entered(here / name, note))
        yield from (here / name for name in sorted(files))


def read_text_file(file: Path, note: Callable[[str], None]) -> str | None:
    """Return a file's text with newlines as line ends; None, noted, where it has none."""
    try:
        content = file.read_bytes()
    except OSError:
        note("unreadable")
        return None
    if b"\0" in content:
        note("binary")
        return None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        note("undecodable")
        return None
    if not text.strip():
        note("empty")
        return None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _is_entered(folder: Path, note: Callable[[str], None]) -> bool:
    reason = None
    if folder.is_symlink():
        reason = "links"
    elif folder.name.startswith("."):
        reason = "hidden"
    elif folder.name in SKIPPED_FOLDERS:
        reason = "tools"
    if reason:
        note(reason)
    return reason is None


def _reason(file: Path) -> str | None:
    """Return why a file is left out before it is read."""
    if file.name.startswith("."):
        return "hidden"
    if file.is_symlink():
        return "links"
    if not file.is_file():  # a pipe or a socket: reading it could wait for ever
        return "binary"
    if not os.access(file, os.R_OK):
        return "unreadable"
    return "huge" if file.stat().st_size > MAX_FILE_BYTES else None


def _unreadable(error: OSError, folder: Path, note: Callable[[str], None]) -> None:
    if error.filename is not None and Path(os.fsdecode(error.filename)) == folder:
        raise UserError(
            f"{folder}: cannot be read ({error.strerror}). Fix: check its permissions"
        ) from error
    note("unreadable")


def text_file_ids(folder: Path, files: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Yield the path of each file below the folder, which names its text, and the file.

    A name that is no UTF-8 is written with replacement characters.
    """
    for file in files:
        name = file.relative_to(folder).as_posix()
        yield name.encode("utf-8", "surrogateescape").decode("utf-8", "replace"), file
