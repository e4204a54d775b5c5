"""List the studies in sweeps/study (`make sweeps`)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig

from quarry.config.entry_point import primaries_of
from quarry.config.schema import register_schemas
from quarry.config.sweep_overrides import all_jobs, has_all_jobs_known
from quarry.runtime.entry import end_with_error
from quarry.runtime.own_command import own_command
from quarry.runtime.shipped_files import conf_dir, studies_dir


@dataclass(frozen=True, kw_only=True)
class StudyFile:
    """Describe a study.

    Attributes:
        name: what `study=` takes.
        primary: train or eval, whose study it is.
        purpose: the first sentence of its header.
        num_jobs: of the file as it stands; at most so many where a sweeper searches. None: a plugin
            that it composes with is not installed.
    """

    name: str
    primary: str
    purpose: str
    num_jobs: int | None


def study_files() -> Iterator[StudyFile]:
    """Yield every study, by name; Hydra has to be initialized with conf/."""
    for path in sorted((studies_dir() / "study").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        primary, *others = primaries_of(text)
        if others:
            raise ValueError(f"{path}: its header does not say '# primary: train' or eval.")
        rest = text.partition(f"# primary: {primary}\n")[2].splitlines()
        yield StudyFile(
            name=path.stem,
            primary=primary,
            purpose=rest[0].removeprefix("# "),
            num_jobs=_num_jobs(primary, study=path.stem),
        )


def _num_jobs(primary: str, *, study: str) -> int | None:
    try:
        sweep = composed_sweep(primary, f"study={study}")
    except MissingConfigException:
        return None
    sweeper = sweep.hydra.sweeper
    return len(all_jobs(sweep)) if has_all_jobs_known(sweeper) else int(sweeper.n_trials)


def composed_sweep(primary: str, *overrides: str) -> DictConfig:
    """Return the configuration of a sweep as its sweeper gets it, Hydra's own part included."""
    loader = GlobalHydra.instance().config_loader()
    return loader.load_configuration(
        config_name=primary, overrides=list(overrides), run_mode=RunMode.MULTIRUN
    )


def main() -> None:
    """Print a line for each study; there are no arguments."""
    given = sys.argv[1:]
    if given and given not in (["--help"], ["-h"]):
        end_with_error(
            f"{' '.join(given)}: the list of studies takes no arguments. Fix: leave it out, or "
            f"{own_command('train')} study=NAME to run one"
        )
    register_schemas()
    with initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3"):
        studies = list(study_files())
    commands = [f"{own_command(one.primary)} study={one.name}" for one in studies]
    width = max(map(len, commands))
    for command, one in zip(commands, studies, strict=True):
        jobs = (
            "needs quarry-retrieval[sweeps]" if one.num_jobs is None else f"{one.num_jobs:3} jobs"
        )
        sys.stdout.write(f"{command.ljust(width)}  {jobs}  {one.purpose}\n")


if __name__ == "__main__":
    main()
