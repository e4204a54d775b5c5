"""Find the files of a test collection in a folder, and the test collections in a folder.

    <set>/corpus.jsonl        or .json, .csv, .tsv, .parquet
    <set>/queries.jsonl       or .json, .csv, .tsv, .parquet
    <set>/qrels/<split>.tsv   or .txt, .trec, .csv, .jsonl, .parquet

Each but Parquet may be gzipped (`.gz` appended). Layout: Thakur et al. 2021, arXiv 2104.08663.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from quarry.data.judgements import JUDGEMENT_FORMS
from quarry.data.record_files import RECORD_FORMS
from quarry.errors import MissingPathError, UserError

logger = logging.getLogger(__name__)

CORPUS, QUERIES = "corpus", "queries"
QRELS = "qrels"


def find_table(folder: Path, name: str) -> Path:
    """Return the file of a folder's corpus or queries.

    Raises:
        MissingPathError: there is none in a supported format; the message names other files.
        UserError: there are two.
    """
    found = _in_forms(folder, name, RECORD_FORMS)
    if not found:
        others = sorted(file.name for file in folder.glob(f"{name}*"))
        here = f" (there is {', '.join(others)}, which is not read)" if others else ""
        raise MissingPathError(
            f"{folder / name}.jsonl: no such file, and none in another form that is read "
            f"({', '.join(RECORD_FORMS)}; .gz appended or not){here}; check the path or convert it"
        )
    return _only(found)


def list_splits(path: Path | str) -> list[str]:
    """Return the names of the splits for which a folder has judgements, sorted."""
    return sorted(_splits(Path(path)))


def find_split(*, path: Path, split: str) -> Path:
    """Return the file with the judgements of a split.

    Raises:
        MissingPathError: there is none; the message lists the splits that exist.
        UserError: it exists in two formats.
    """
    if not path.is_dir():
        raise MissingPathError(f"{path}: no such folder; check the path or fetch the data")
    splits = _splits(path)
    if split in splits:
        return _only(splits[split])
    known = f"choose one of: {', '.join(sorted(splits))}" if splits else "it has no qrels/*.tsv"
    others = [file.name for file in _files(path / QRELS) if _split_of(file) is None]
    if others:
        known += f" (qrels/ also has {', '.join(others)}, which no form says how to read)"
    raise MissingPathError(
        f"{path}: no split {split!r} (qrels/{split}{'|'.join(JUDGEMENT_FORMS)}); {known}"
    )


def is_beir_folder(path: Path) -> bool:
    """Return whether a folder has corpus, queries and the judgements of at least one split."""
    has_texts = all(_in_forms(path, name, RECORD_FORMS) for name in (CORPUS, QUERIES))
    return has_texts and bool(_splits(path))


def has_part_of_set(path: Path) -> bool:
    """Return whether a folder has a corpus, queries or judgements, in any format."""
    return any(each.name.partition(".")[0] in (CORPUS, QUERIES, QRELS) for each in _inside(path))


def find_sets(path: Path | str) -> list[Path]:
    """Return the sets at `path`: itself, or the folders in it that have a part of a set, sorted.

    Folders in it that have no part of a set are logged.

    Raises:
        MissingPathError: there is no set.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        raise MissingPathError(f"{path}: no such folder; check the path or fetch the data")
    if is_beir_folder(path):
        return [path]
    inside = [each for each in _inside(path) if each.is_dir()]
    sets = [folder for folder in inside if has_part_of_set(folder)]
    if has_part_of_set(path):
        if not sets:
            return [path]
        logger.warning(
            "%s: has a part of a set itself, but not all; the sets are the folders inside: %s",
            path,
            ", ".join(folder.name for folder in sets),
        )
    if not sets:
        raise MissingPathError(
            f"{path}: neither a BEIR folder nor a folder of them; a BEIR folder has corpus.jsonl, "
            "queries.jsonl and qrels/<split>.tsv (docs/data.md lists the other forms)"
        )
    others = [each.name for each in inside if each not in sets and not each.name.startswith(".")]
    if others:
        logger.info(
            "%s: %d folders have no corpus, queries or qrels and are no sets: %s",
            path,
            len(others),
            ", ".join(others),
        )
    return sets


def _splits(path: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for file in _files(path / QRELS):
        split = _split_of(file)
        if split is not None:
            found.setdefault(split, []).append(file)
    return found


def _files(folder: Path) -> list[Path]:
    return [file for file in _inside(folder) if file.is_file() and file.name[0] != "."]


def _inside(folder: Path) -> list[Path]:
    """Return what is in a folder, sorted; nothing if it is not a folder."""
    if not folder.is_dir():
        return []
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be read ({error.strerror}); check its permissions"
        ) from error


def _split_of(file: Path) -> str | None:
    for form in JUDGEMENT_FORMS:
        for ending in _endings(form):
            if file.name.endswith(ending) and file.name != ending:
                return file.name.removesuffix(ending)
    return None


def _in_forms(folder: Path, name: str, forms: Sequence[str]) -> list[Path]:
    files = [folder / f"{name}{ending}" for form in forms for ending in _endings(form)]
    return [file for file in files if file.is_file()]


def _endings(form: str) -> list[str]:
    return [form] if form == ".parquet" else [form, f"{form}.gz"]


def _only(files: Sequence[Path]) -> Path:
    """Return the only file; prefer a plain one to its gzipped twin, with a warning."""
    plain = sorted({file.with_name(file.name.removesuffix(".gz")) for file in files})
    if len(plain) > 1:
        names = " and ".join(str(file) for file in sorted(files))
        raise UserError(f"{names}: the same table in two forms, nobody says which counts; keep one")
    if len(files) > 1:
        logger.warning("%s is read, %s.gz beside it is not", plain[0], plain[0].name)
        return plain[0]
    return files[0]
