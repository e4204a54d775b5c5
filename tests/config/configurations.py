"""What can be composed: the files of conf/, the groups of each primary, and one case for each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.defaults_list import DefaultsList
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig

from quarry.config.schema import register_schemas

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"
PRIMARIES = ("train", "eval")

PRIMARY_LINE = re.compile(r"^# primary: (.+)$", re.MULTILINE)
"""`# primary: train` in the header of an option says that only train.py has a use for it."""


@dataclass(frozen=True)
class Case:
    """One option in one place of one primary, and whether it stands there by default.

    A place that only another option brings has that option in `needs`: task/index is in task=index.
    """

    primary: str
    override: str
    file: str
    is_default: bool
    needs: tuple[str, ...] = ()

    @property
    def overrides(self) -> tuple[str, ...]:
        return (*self.needs, self.override)

    def __str__(self) -> str:
        return f"{self.primary}-{self.override}"


@contextmanager
def opened(conf: Path = CONF) -> Iterator[None]:
    """Lets Hydra compose from `conf`; files are parsed once for the whole block."""
    register_schemas()
    with initialize_config_dir(config_dir=str(conf), version_base="1.3"):
        yield


def composed(primary: str, *overrides: str) -> DictConfig:
    """As a run would see it, but for the run directory. Needs `opened`."""
    return compose(config_name=primary, overrides=["paths.run_dir=RUN_DIR", *overrides])


def files(conf: Path = CONF) -> list[str]:
    """Every option, as `group/option`, and the primaries."""
    return sorted(
        path.relative_to(conf).with_suffix("").as_posix() for path in conf.rglob("*.y*ml")
    )


def header(file: str, conf: Path = CONF) -> str:
    """The comment that a file begins with."""
    lines = (conf / f"{file}.yaml").read_text(encoding="utf-8").splitlines()
    end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "\n".join(lines[:end])


def primaries_of(file: str, conf: Path = CONF) -> tuple[str, ...]:
    """The primaries that an option is for: those of its `# primary:` line, or any."""
    found = PRIMARY_LINE.search(header(file, conf))
    return tuple(re.split(r",\s*", found[1].strip())) if found else PRIMARIES


def defaults(primary: str, *overrides: str) -> DefaultsList:
    """The files that make up a configuration, and what was chosen in each place. Needs `opened`."""
    loader = GlobalHydra.instance().config_loader()
    return loader.compute_defaults_list(primary, list(overrides), run_mode=RunMode.RUN)


def cases(conf: Path = CONF) -> list[Case]:
    """Every option of every group, wherever a primary that it is for has the group."""
    with opened(conf):
        places = {
            primary: dict(sorted(defaults(primary).overrides.known_choices.items()))
            for primary in PRIMARIES
        }
    found = []
    for file in files(conf):
        group, _, option = file.rpartition("/")
        for primary in primaries_of(file, conf):
            found += [
                Case(primary, f"{place}={option}", file, is_default=option == chosen)
                for place, chosen in places[primary].items()
                if place.split("@")[0] == group
            ]
            if not found or found[-1].file != file:
                found += _inner_case(file, primary, conf)
    return found


def _inner_case(file: str, primary: str, conf: Path) -> list[Case]:
    """The case of an option in a place that the option named as its folder brings."""
    group, _, option = file.rpartition("/")
    outer, _, name = group.rpartition("/")
    if not outer or not (conf / f"{group}.yaml").is_file():
        return []
    if primary not in primaries_of(group, conf):
        return []
    chosen = f"{outer}={name}"
    with opened(conf):
        places = defaults(primary, chosen).overrides.known_choices
    return [
        Case(primary, f"{place}={option}", file, is_default=option == default, needs=(chosen,))
        for place, default in places.items()
        if place.split("@")[0] == group
    ]


def reached(conf: Path = CONF) -> set[str]:
    """Every file that some configuration is made of."""
    seen: set[str | None] = set()
    left = cases(conf)
    with opened(conf):
        for primary in PRIMARIES:
            seen |= {entry.config_path for entry in defaults(primary).defaults}
        for case in left:
            if case.file not in seen:
                made_of = defaults(case.primary, *case.overrides).defaults
                seen |= {entry.config_path for entry in made_of}
    return {file for file in seen if file}
