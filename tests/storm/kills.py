"""Kill commands at random moments, continue them, and compare with what nobody disturbed.

    python tests/storm/kills.py --minutes 25 --seed 1                              (= make storm)
    python tests/storm/kills.py --kills 40 --seed 7 --only train,export --real-share 0

Each trial begins a command (scenarios.py) in a folder of its own, kills it with SIGKILL after a
random time, begins what a user would type next, and so on; then it lets the command end. It fails
if a result differs from the undisturbed one, a process is left, or something unfinished lies
there. A share of the commands are real ones (`python train.py ...`); the others are forks of a
Python that has imported the libraries. The record of each storm is a JSON file.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from helpers.commands import quiet_environment  # noqa: E402
from helpers.preloaded import PreloadedPython, Script  # noqa: E402
from storm.scenarios import UNEVALUATED, Scenario, drawn, scenarios  # noqa: E402

MARK = "QUARRY_STORM"
"""Variable by which the processes of a lane are recognized, when the killed ones are gone."""

LIMIT_S = 240
ENDS_S = 20
"""How long the children of a killed process get to end."""

HELD, OK = 2, 0


@dataclass
class Record:
    """What has happened so far; the lanes share it."""

    kills: Counter[str] = field(default_factory=Counter)
    real_kills: Counter[str] = field(default_factory=Counter)
    trials: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


class Lane:
    """Runs one trial after the other.

    Args:
        number: of the lane; it makes the random numbers its own.
        folder: for its trials.
    """

    def __init__(self, number: int, *, folder: Path, seed: int, real_share: float) -> None:
        self.folder = folder / f"lane_{number}"
        self.folder.mkdir(parents=True)
        self.mark = f"{os.getpid()}-{number}"
        self.environment = {**quiet_environment(self.folder), MARK: self.mark}
        self.chance = random.Random(f"{seed}-{number}")
        self.real_share = real_share
        self.pythons = [PreloadedPython(self.environment) for _ in range(2)]
        self.servers = {one.pid for one in self.pythons}
        self.durations: dict[tuple[str, bool], float] = {}
        self.expected: dict[str, dict[str, str]] = {}
        self.num_trials = 0

    def close(self) -> None:
        for python in self.pythons:
            python.close()

    def train(self) -> Path:
        """Return the directory of a finished run, for the scenarios that read one."""
        run = self.folder / "trained"
        command = ["train.py", *UNEVALUATED, "trainer.max_steps=2", "logger=none",
                   f"hydra.run.dir={run}"]  # fmt: skip
        code, said = self._run(0, command, is_real=False, after_s=LIMIT_S)
        assert code == OK, said
        return run

    def reference(self, scenario: Scenario) -> None:
        """Run a scenario undisturbed, for its results and its duration."""
        folder = scenario.prepare(self.folder / "reference" / scenario.name.replace(" ", "_"))
        begin = time.monotonic()
        code, said = self._run(
            0, scenario.command(folder, is_real=False), is_real=False, after_s=LIMIT_S
        )
        assert code == OK, f"{scenario.name} without kills: {said}"
        duration = time.monotonic() - begin
        self.durations[scenario.name, False] = duration
        self.durations[scenario.name, True] = duration + 6  # the imports
        self.expected[scenario.name] = scenario.outcome(folder)
        assert self.expected[scenario.name], f"{scenario.name} leaves nothing to compare"
        assert scenario.debris(folder) == [], scenario.debris(folder)

    def trial(self, scenario: Scenario, record: Record) -> None:
        """Kill a command some times, let it end, and look at what it leaves."""
        self.num_trials += 1
        name = scenario.name
        folder = scenario.prepare(self.folder / f"trial_{self.num_trials}")
        history: list[str] = []
        for _ in range(self.chance.randint(2, 6)):
            is_real = self.chance.random() < self.real_share
            after_s = self.chance.uniform(0, self.durations[name, is_real])
            codes = self._at_once(scenario, folder, is_real=is_real, after_s=after_s)
            history.append(f"{'real' if is_real else 'fork'} {after_s:.2f} s: {codes}")
            record.kills[name] += codes.count(None)
            record.real_kills[name] += is_real * codes.count(None)
            orphans = self._orphans()
            if orphans:
                self._fail(record, folder, history, f"orphans: {orphans}")
            if OK in codes or scenario.is_done(folder):
                break  # it has ended, or had done all before the kill
        code, said = OK, ""
        if OK not in codes and not scenario.is_done(folder):
            command = scenario.command(folder, is_real=False)
            code, said = self._run(0, command, is_real=False, after_s=LIMIT_S)
        record.trials[name] += 1
        outcome = scenario.outcome(folder)
        if code != OK:
            self._fail(record, folder, history, f"{name}: exit code {code}: {said[-3000:]}")
        elif outcome != self.expected[name]:
            both = outcome.keys() | self.expected[name].keys()
            other = [key for key in both if outcome.get(key) != self.expected[name].get(key)]
            self._fail(record, folder, history, f"{name}: other results: {sorted(other)}")
        elif scenario.debris(folder):
            self._fail(record, folder, history, f"{name}: left: {scenario.debris(folder)}")
        else:
            shutil.rmtree(folder)

    def _fail(self, record: Record, folder: Path, history: Sequence[str], what: str) -> None:
        record.failures.append(f"{what}; {folder}; {'; '.join(history)}")
        print(f"FAILED {record.failures[-1]}", flush=True)

    def _at_once(
        self, scenario: Scenario, folder: Path, *, is_real: bool, after_s: float
    ) -> list[int | None]:
        """Return the exit codes of the processes of one round; None: killed."""
        command = scenario.command(folder, is_real=is_real)
        if scenario.num_at_once == 1:
            return [self._run(0, command, is_real=is_real, after_s=after_s)[0]]
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(self._run, 0, command, is_real=is_real, after_s=after_s)
            second = pool.submit(self._run, 1, command, is_real=is_real, after_s=after_s)
            return [first.result()[0], second.result()[0]]

    def _run(
        self, place: int, command: Sequence[str], *, is_real: bool, after_s: float
    ) -> tuple[int | None, str]:
        """Return the exit code and the output of a command that is killed after a time."""
        out = self.folder / f"out_{place}"
        out.unlink(missing_ok=True)
        if is_real:
            code = self._real(command, out=out, after_s=after_s)
        else:
            script = Script(
                arguments=[str(ROOT / command[0]), *command[1:]],
                environment=self.environment,
                folder=str(self.folder),
                out=str(out),
                err=str(out),
            )
            (code,) = self.pythons[place].run(script, timeout_s=after_s)
        said = out.read_text(errors="replace") if out.exists() else ""
        if code not in (None, OK, HELD):
            said = f"exit code {code}: {said}"
        return code, said

    def _real(self, command: Sequence[str], *, out: Path, after_s: float) -> int | None:
        with out.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, str(ROOT / command[0]), *command[1:]],
                cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL,
                stdout=file, stderr=file,
            )  # fmt: skip
            try:
                return process.wait(timeout=after_s)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                return None

    def _orphans(self) -> list[str]:
        """Return the processes that are left when they had time to end."""
        deadline = time.monotonic() + ENDS_S
        while left := self._processes():
            if time.monotonic() > deadline:
                return left
            time.sleep(0.1)
        return []

    def _processes(self) -> list[str]:
        found = []
        for process in psutil.process_iter():
            try:
                is_ours = process.environ().get(MARK) == self.mark
                is_alive = is_ours and process.status() != psutil.STATUS_ZOMBIE
                if is_alive and process.pid not in self.servers:
                    found.append(f"{process.pid} {' '.join(process.cmdline())[:120]}")
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return found


def run_lane(
    lane: Lane, *, only: Sequence[str] | None, record: Record, ends: float, num_kills: int
) -> None:
    """Run trials until the time is over or the kills are enough."""
    chosen = scenarios(lane.train())
    used = [one for name, one in chosen.items() if only is None or name in only]
    for scenario, _ in used:
        lane.reference(scenario)
    while time.monotonic() < ends and sum(record.kills.values()) < num_kills:
        lane.trial(drawn(used, lane.chance), record)


def storm(
    folder: Path,
    *,
    seed: int,
    minutes: float,
    num_kills: int,
    num_lanes: int,
    real_share: float,
    only: Sequence[str] | None,
) -> Record:
    """Run all lanes and return what has happened."""
    record = Record()
    ends = time.monotonic() + 60 * minutes
    lanes = [Lane(i, folder=folder, seed=seed, real_share=real_share) for i in range(num_lanes)]
    try:
        with ThreadPoolExecutor(num_lanes) as pool:
            running = [
                pool.submit(
                    run_lane, lane, only=only, record=record, ends=ends, num_kills=num_kills
                )
                for lane in lanes
            ]
        for each in running:
            each.result()
    finally:
        for lane in lanes:
            lane.close()
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--kills", type=int, default=10**6, help="end after that many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lanes", type=int, default=2)
    parser.add_argument("--real-share", type=float, default=0.2, help="of the commands")
    parser.add_argument("--only", help="scenarios, with commas between")
    parser.add_argument("--results", type=Path, default=ROOT / "runs" / "storm")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="quarry-storm-"))
    begin = datetime.now(UTC)
    record = storm(
        folder,
        seed=arguments.seed,
        minutes=arguments.minutes,
        num_kills=arguments.kills,
        num_lanes=arguments.lanes,
        real_share=arguments.real_share,
        only=arguments.only.split(",") if arguments.only else None,
    )
    content = {
        "seed": arguments.seed,
        "lanes": arguments.lanes,
        "minutes": round((datetime.now(UTC) - begin).total_seconds() / 60, 1),
        "kills": dict(record.kills),
        "real_kills": dict(record.real_kills),
        "trials": dict(record.trials),
        "failures": record.failures,
    }
    arguments.results.mkdir(parents=True, exist_ok=True)
    path = arguments.results / f"storm_{begin:%Y-%m-%d_%H%M}_{arguments.seed}.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    kills, real = sum(record.kills.values()), sum(record.real_kills.values())
    print(
        f"{kills} kills ({real} of real commands) in {sum(record.trials.values())} trials, "
        f"{len(record.failures)} failures: {path}"
    )
    if record.failures:
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
