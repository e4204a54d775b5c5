"""Find the files of a user's training data: a named file, or those of a folder."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from quarry.data.jsonl import find_file
from quarry.data.record_files import RECORD_FORMS, form_of
from quarry.errors import MissingPathError, UserError

logger = logging.getLogger(__name__)

TRAIN_WORDS = ("train", "training", "trainset", "traindata")
OTHER_SPLIT_WORDS = (
    *("test", "testing", "dev", "development", "valid", "validation", "val", "eval", "evaluation"),
    *("testset", "devset", "validset", "testdata", "devdata"),
)
"""Words in a file's name that tell its split."""

_DESCRIPTIONS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
"""Files that the `datasets` library writes beside the data."""

_MAX_NAMED = 10


def find_training_files(path: Path, *, beside: Path | None = None) -> list[Path]:
    """Return the file at `path`, or the training files of the folder at `path`, sorted by name.

    If a name in the folder tells another split (test, dev, validation), only files whose names say
    train are used, and a warning lists the others. Subfolders are not searched.

    Args:
        beside: a file in the folder that is not training data: the corpus.

    Raises:
        MissingPathError: nothing is there, or the folder has no file of `RECORD_FORMS`.
        UserError: the folder has files of several forms, or files of another split and none whose
            name says train; or it cannot be read.
    """
    path = path.expanduser()
    if not path.is_dir():
        return [find_file(path)]
    files = [file for file in _inside(path) if _is_record_file(file)]
    if beside is not None:
        files = [file for file in files if file.resolve() != beside.expanduser().resolve()]
    if not files:
        raise _nothing_in(path)
    _name_others(path, files)
    return _of_one_form(path, _of_train_split(path, _without_zipped_twins(files)))


def _inside(folder: Path) -> list[Path]:
    """Return what is in a folder, sorted by name, without hidden files and folders."""
    try:
        return sorted(each for each in folder.iterdir() if not each.name.startswith("."))
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be read ({error.strerror}). Fix: check its permissions"
        ) from error


def _is_record_file(file: Path) -> bool:
    if file.name in _DESCRIPTIONS or file.name.lower().endswith(".parquet.gz"):
        return False
    return form_of(file) in RECORD_FORMS and file.is_file()


def _nothing_in(folder: Path) -> MissingPathError:
    inside = _inside(folder)
    forms = f"{', '.join(RECORD_FORMS)}; all but .parquet also with .gz"
    with_files = [each for each in inside if _num_record_files(each)]
    if with_files:
        counts = [f"{each.name}/ ({_num_record_files(each)} files)" for each in with_files]
        return MissingPathError(
            f"{folder}: has no training files itself ({forms}), and folders inside are not "
            f"searched: {_listed(counts)}. Fix: name one of them: {with_files[0]}"
        )
    if not inside:
        return MissingPathError(f"{folder}: the folder is empty. Fix: check the path, or fetch it")
    return MissingPathError(
        f"{folder}: has no training files ({forms}); it has {_listed(_names(inside))}. Fix: check "
        "the path, or convert the files (datasets: to_parquet(...), pandas: to_json(..., "
        "orient='records', lines=True))"
    )


def _num_record_files(folder: Path) -> int:
    return sum(map(_is_record_file, _inside(folder))) if folder.is_dir() else 0


def _name_others(folder: Path, files: Sequence[Path]) -> None:
    """Log what is not read, except Markdown files."""
    others = [each for each in _inside(folder) if each not in set(files)]
    others = [each for each in others if each.suffix.lower() != ".md"]
    if others:
        logger.info("%s: no training files and not read: %s", folder, _listed(_names(others)))


def _without_zipped_twins(files: Sequence[Path]) -> list[Path]:
    """Return the files without gzipped twins of plain files; warn about them."""
    twins = [file for file in files if file.with_name(f"{file.name}.gz") in set(files)]
    for file in twins:
        logger.warning("%s is read, %s.gz beside it is not", file, file.name)
    left_out = {file.with_name(f"{file.name}.gz") for file in twins}
    return [file for file in files if file not in left_out]


def _of_train_split(folder: Path, files: Sequence[Path]) -> list[Path]:
    """Return all files, or only the training split's if a name tells another split."""
    others = [file for file in files if _is_of_other_split(file)]
    if not others:
        return list(files)
    train = [file for file in files if _is_of_train_split(file)]
    if not train:
        raise UserError(
            f"{folder}: the names of {_listed(_names(others))} say that they are no training data, "
            "and no other name says train. Fix: name the one file to train on, or move the "
            "training files to a folder of their own"
        )
    logger.warning(
        "%s: reads %s; left out, as there are files of other splits and their names do not say "
        "train: %s",
        folder,
        _listed(_names(train)),
        _listed(_names(file for file in files if file not in train)),
    )
    return train


def _is_of_train_split(file: Path) -> bool:
    """Return whether a name says train and no other split: train-dev.jsonl is no training data."""
    return _says(file, TRAIN_WORDS) and not _is_of_other_split(file)


def _is_of_other_split(file: Path) -> bool:
    return _says(file, OTHER_SPLIT_WORDS)


def _says(file: Path, words: Sequence[str]) -> bool:
    """Return whether a name has one of the words, as nq-dev_0.jsonl and nqDev.jsonl have."""
    found = {word.lower() for word in re.findall(r"[A-Z]*[a-z]+|[A-Z]+", file.name)}
    return not found.isdisjoint(words)


def _of_one_form(folder: Path, files: list[Path]) -> list[Path]:
    forms = {form_of(file): file for file in reversed(files)}
    if len(forms) > 1:
        examples = [forms[form].name for form in sorted(forms)]
        raise UserError(
            f"{folder}: holds training files of {len(forms)} forms: {_listed(examples)}. Fix: name "
            "one file, or keep the files of one form in the folder"
        )
    return files


def _names(files: Iterable[Path]) -> list[str]:
    return [f"{file.name}/" if file.is_dir() else file.name for file in files]


def _listed(names: Sequence[str]) -> str:
    """Join names for a message, and shorten a long list."""
    more = len(names) - _MAX_NAMED
    return ", ".join(names[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
