"""Find the files of a corpus: a table, a BEIR folder, a folder of text files, a hub data set."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from quarry.data.beir_folder import CORPUS, QUERIES, find_table
from quarry.data.hub_tables import LOCAL, HubTable, find_table_files, pinned
from quarry.data.jsonl import find_file
from quarry.data.record_files import RECORD_FORMS, form_of
from quarry.data.text_files import find_text_files, walk
from quarry.errors import MissingPathError, UserError
from quarry.types import Role

logger = logging.getLogger(__name__)

Kind = Literal["auto", "table", "texts", "hub"]

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
# beside what begins with a dot or, such as Spark's _SUCCESS, with an underscore
_BESIDE_TABLES = re.compile(r"(readme|license|licence)(\..*)?|dataset_infos?\.json", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentPlace:
    """Where texts come from.

    Attributes:
        source: as the user named it; of the hub with the commit.
        kind: table (files of records), texts (a folder of text files) or hub.
        files: sorted by path, or in the order of the data set.
        folder: the folder of text files; None: another kind.
        left_out: key of `text_files.NOT_READ` -> number of files or folders not even opened.
    """

    source: str
    kind: str
    files: tuple[Path, ...]
    folder: Path | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def are_texts(self) -> bool:
        """Whether each file is a text, not a table of texts."""
        return self.folder is not None


def find_documents(
    source: str,
    *,
    role: Role = "document",
    kind: str = "auto",
    subset: str | None = None,
    split: str | None = None,
    revision: str | None = None,
) -> DocumentPlace:
    """Return the files of a source.

    Args:
        source: a file of records; a BEIR folder, of which `role` says the table; a folder with
            nothing but files of records of one form; any other folder: its text files; what is no
            path and looks like OWNER/NAME: a data set of the hub.
        kind: table, texts or hub, where auto would choose another.
        subset, split, revision: of a data set of the hub; None: what layouts of test collections
            have (corpus or queries), else default and train, at the newest commit.

    Raises:
        MissingPathError: there is nothing at the path.
        UserError: `kind` is unknown or does not fit, or a key of the hub has no effect.
    """
    if kind not in get_args(Kind):
        raise UserError(
            f"task.kind={kind}: unknown ({', '.join(get_args(Kind))}). Fix: leave it out"
        )
    path = Path(source).expanduser()
    is_hub = kind == "hub" or (
        kind == "auto" and not path.exists() and not source.startswith(LOCAL)
        and _HUB_ID.fullmatch(source) is not None and form_of(path) not in RECORD_FORMS
    )  # fmt: skip
    if is_hub:
        try:
            return _of_hub(source, role=role, subset=subset, split=split, revision=revision)
        except UserError as error:
            if kind == "hub":
                raise
            raise UserError(
                f"task.corpus={source}: no such path is here, so that it was looked for on the "
                f"hub. Fix: check the path. Or, if it is a data set of the hub: {error}"
            ) from error
    given = {"subset": subset, "split": split, "revision": revision}
    if named := [f"task.{key}={value}" for key, value in given.items() if value is not None]:
        raise UserError(
            f"{', '.join(named)}: has no effect on files (a data set of the hub has it). Fix: "
            "leave it out, or task.kind=hub for a copy of a repository"
        )
    if not path.is_dir():
        if kind == "texts":
            raise UserError(f"task.kind=texts: {source} is no folder. Fix: name a folder")
        return DocumentPlace(source=source, kind="table", files=(_file(path),))
    if kind != "texts" and (tables := _tables_in(path, role)):
        return DocumentPlace(source=source, kind="table", files=tables)
    if kind == "table":
        raise MissingPathError(
            f"task.corpus={source}: no table in the folder ({', '.join(RECORD_FORMS)}). Fix: name "
            "a file, or task.kind=texts"
        )
    left: Counter[str] = Counter()
    folder = path.resolve()
    if kind == "auto":
        _refuse_tables(source, folder)
    files = find_text_files(folder, lambda reason: left.update([reason]))
    return DocumentPlace(
        source=source, kind="texts", files=tuple(files), folder=folder, left_out=dict(left)
    )


def _file(path: Path) -> Path:
    file = find_file(path)
    if form_of(file) not in RECORD_FORMS:
        raise UserError(
            f"task.corpus={path}: files are read as tables ({', '.join(RECORD_FORMS)}; all but "
            ".parquet also with .gz). Fix: convert it, or name the folder of text files"
        )
    return file


def _tables_in(folder: Path, role: Role) -> tuple[Path, ...]:
    """Return a BEIR folder's table, or the files of a folder that holds one form of tables."""
    name = QUERIES if role == "query" else CORPUS
    if any(_is_beir_table(file) for file in folder.iterdir()):
        return (find_table(folder, name),)  # of the other table alone, it says what is missing
    inside = sorted(
        each
        for each in folder.iterdir()
        if not each.name.startswith((".", "_")) and not _BESIDE_TABLES.fullmatch(each.name)
    )
    forms = {form_of(each) if each.is_file() else "" for each in inside}
    return tuple(inside) if len(forms) == 1 and forms <= set(RECORD_FORMS) else ()


def _refuse_tables(source: str, folder: Path) -> None:
    """Refuse a folder with tables somewhere: each would be one text of raw records.

    JSON is no reason: source trees have files of settings.
    """
    forms = (*(form for form in RECORD_FORMS if form != ".json"), ".arrow")
    found = [
        file
        for file in walk(folder, lambda _: None)
        if form_of(file) in forms and not file.name.startswith(".")
    ]
    if not found:
        return
    arrow = "Arrow files are not read: write Parquet. " if form_of(found[0]) == ".arrow" else ""
    raise UserError(
        f"task.corpus={source}: holds tables ({found[0].relative_to(folder)}; {len(found)} in "
        f"all), and is neither a BEIR folder nor one of tables of one form alone. {arrow}Fix: "
        "task.corpus=PATH of the table or of a folder of tables, or task.kind=texts to read each "
        "file as a text"
    )


def _is_beir_table(file: Path) -> bool:
    name = file.name.partition(".")[0]
    return name in (CORPUS, QUERIES) and form_of(file) in RECORD_FORMS and file.is_file()


def _of_hub(
    source: str, *, role: Role, subset: str | None, split: str | None, revision: str | None
) -> DocumentPlace:
    name = QUERIES if role == "query" else CORPUS
    table = pinned(
        HubTable(
            repo=source,
            revision=revision,
            configs=(name, "default") if subset is None else (subset, f"{subset}-{name}"),
            splits=(name, "train") if split is None else (split,),
            group="task",
        )
    )
    files = find_table_files(table)
    return DocumentPlace(source=str(table.place), kind="hub", files=tuple(files))
