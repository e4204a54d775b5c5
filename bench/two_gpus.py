"""Shows what two GPUs of one machine bring, and that a run survives on them; writes JSON, a table.

    python bench/two_gpus.py --results DIR
    python bench/two_gpus.py --results DIR --only one,ddp --budget-s 300
    python bench/two_gpus.py --results DIR --scale tiny               (two processes on a CPU)

Real trainings by `train.py`, on random weights. Timed: LoRA of a 7B model on one GPU, and on two
with as much work a GPU (and with the same batch); all weights of 7B and of 1.5B under ZeRO 3.
Killed by SIGKILL after a checkpoint, resumed, and compared with a run that nobody stopped: LoRA of
7B under DDP and ZeRO 2, all weights of 1.5B under ZeRO 3, with evaluations in training.

A stage that fails leaves a reason; a later call adds to the same files.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from processes import ROOT, reason, run_until
from result_line import results_in
from two_gpus_compared import agreement, survival
from two_gpus_jobs import CLOCK, LORA_STRATEGIES, ONE, SCALES, Job, Jobs, Lane, Stages
from two_gpus_table import tables

BENCH = ROOT / "bench"
NUM_BYTES_WANTED = 90e9
"""In memory-backed scratch space: both models, and the checkpoints of all weights of 1.5B."""

LEAST_S = 20
"""Nothing is begun with less time left."""

NUM_GPUS = 2
MATRIX_SIZE = 4096
"""Of the product that machine.py times, here in passing."""

NUM_CHARACTERS_KEPT = 8000
"""Of what each process says."""

Content = dict[str, Any]


@dataclass(kw_only=True)
class Show:
    """Runs jobs and keeps their results.

    Attributes:
        jobs: makes them.
        results: where `two_gpus.json`, its tables and the log go.
        deadline: of `time.monotonic`.
        content: what is written, with that of earlier calls.
        has_gpu: otherwise all run on the CPU.
    """

    jobs: Jobs
    results: Path
    deadline: float
    content: Content = field(default_factory=dict)
    has_gpu: bool = False
    _lock: Lock = field(default_factory=Lock)

    def begin(self) -> None:
        """Looks at the machine and makes models and texts."""
        self.content = opened(self.results)
        with ThreadPoolExecutor(1) as pool:
            making = pool.submit(self._prepare)
            machine = self._machine()
            making.result()
        self.has_gpu = machine["has_gpu"]
        if self.has_gpu and machine["num_gpus"] < NUM_GPUS:
            sys.exit(f"Two GPUs are needed: this machine has {machine['num_gpus']}.")
        self.content["runs"].append(machine)
        self.content["scale"] = asdict(self.jobs.scale)
        self.write()

    def _prepare(self) -> None:
        """Models and texts, side by side; what is there already stays."""
        scale = self.jobs.scale
        made: list[tuple[str, list[str]]] = [
            ("random_model.py", [size, str(self.jobs.model(size))])
            for size in dict.fromkeys((scale.large, scale.small))
        ]
        numbers = ["--num-examples", "1024", "--num-documents", "512", "--num-test-queries", "64"]
        words = ["--num-words", str(scale.num_words)]
        made.append(("texts.py", [str(self.jobs.texts), *numbers, *words]))
        with ThreadPoolExecutor(len(made)) as pool:
            list(pool.map(lambda each: self._prepared(*each), made))

    def _prepared(self, script: str, arguments: list[str]) -> None:
        done = self.jobs.work / f".{script}.{arguments[0].replace('/', '_')}.done"
        if done.exists():
            return
        self._run([sys.executable, str(BENCH / script), *arguments], script, time_limit_s=150)
        done.touch()

    def stage(self, name: str, lanes: tuple[Lane, ...]) -> None:
        """Runs it, and compares what can be compared by then."""
        start = time.monotonic()
        with ThreadPoolExecutor(len(lanes)) as pool:
            list(pool.map(self._lane, lanes))
        try:
            compare(self.content, self.jobs)
        except ValueError as error:
            say(f"  cannot be compared: {error}")
        say(f"{name}: {time.monotonic() - start:.0f} s")
        self.write()

    def _lane(self, lane: Lane) -> None:
        for job in lane:
            start = time.monotonic()
            try:
                outcome = self._outcome(job)
            except (RuntimeError, OSError) as error:
                outcome = {"not_run": str(error)}
            outcome["process_s"] = round(time.monotonic() - start, 1)
            outcome["run"] = len(self.content["runs"]) - 1
            say(f"  {job.name}: {outcome}")
            with self._lock:
                self.content["jobs"][job.name] = outcome
            self.write()

    def _outcome(self, job: Job) -> Content:
        is_new = "task=resume" not in job.command
        if is_new and job.run.parent.exists():
            shutil.rmtree(job.run.parent)
        job.run.parent.mkdir(parents=True, exist_ok=True)
        visible = ",".join(map(str, job.gpus)) if self.has_gpu else ""
        self._run(
            list(job.command),
            job.name,
            time_limit_s=job.time_limit_s,
            variables={"CUDA_VISIBLE_DEVICES": visible},
            ends_when=job.ends_when,
            grace_s=job.grace_s,
        )
        if job.ends_when == job.checkpoint and (job.run / "model").exists():
            raise RuntimeError("it had ended before it was killed")
        result: Content = {"num_queries": job.num_queries, "num_gpus": len(job.gpus)}
        clock = job.run.with_name(CLOCK)
        if job.ends_when == clock:
            result |= json.loads(clock.read_text(encoding="utf-8"))
        return result

    def _run(self, command: list[str], name: str, *, time_limit_s: float, **more: Any) -> str:
        """Runs it and returns what it said.

        Raises:
            RuntimeError: it failed, or there was no time.
        """
        left = self.deadline - time.monotonic()
        if left < LEAST_S:
            raise RuntimeError("not begun: the budget of time was used")
        limit = min(time_limit_s, left)
        log = self.jobs.work / f"{name}.log"
        log.unlink(missing_ok=True)
        code = run_until(command, log=log, time_limit_s=limit, **({"variables": {}} | more))
        output = log.read_text(encoding="utf-8", errors="replace")
        with self._lock, (self.results / "two_gpus.log").open("a", encoding="utf-8") as file:
            file.write(f"\n$ {' '.join(command[1:])}\n{output[-NUM_CHARACTERS_KEPT:]}\n")
        if code is None:
            raise RuntimeError(f"ended after {limit:.0f} s, its time limit")
        if code:
            raise RuntimeError(reason(output))
        return output

    def _machine(self) -> Content:
        command = [sys.executable, str(BENCH / "machine.py"), "--size", str(MATRIX_SIZE)]
        output = self._run(command, "machine.py", time_limit_s=120)
        found: Content = results_in(output)
        date = datetime.datetime.now().astimezone().date().isoformat()
        command_line = "python bench/two_gpus.py " + " ".join(sys.argv[1:])
        return {"command": command_line.strip(), "date": date, **found}

    def write(self) -> None:
        with self._lock:
            path = self.results / "two_gpus.json"
            path.write_text(json.dumps(self.content, indent=1) + "\n", encoding="utf-8")
            path.with_suffix(".md").write_text(tables(self.content), encoding="utf-8")


def compare(content: Content, jobs: Jobs) -> None:
    """Adds how far runs that should agree do, for all that have ended well and are still here."""
    done = {
        name
        for name, job in content["jobs"].items()
        if "not_run" not in job and (jobs.result_of(name) / "learning_curve.json").exists()
    }
    for name in jobs.scale.survivors:
        whole = f"{name}_whole"
        if not {whole, f"{name}_resumed"} <= done:
            continue
        content["survival"][name] = survival(
            jobs.result_of(whole),
            jobs.result_of(f"{name}_resumed"),
            first=jobs.scale.num_updates_per_save,
        )
    for name in LORA_STRATEGIES:
        whole = f"{name}_whole"
        if {whole, ONE} <= done:
            content["agreement"][name] = agreement(jobs.result_of(ONE), jobs.result_of(whole))


def say(text: str) -> None:
    print(text, flush=True)


def opened(results: Path) -> Content:
    """What earlier calls have found."""
    path = results / "two_gpus.json"
    if path.exists():
        found: Content = json.loads(path.read_text(encoding="utf-8"))
        return found
    return {"runs": [], "jobs": {}, "survival": {}, "agreement": {}}


def scratch() -> Path:
    """In memory if there is room, for disks may be slow."""
    shared = Path("/dev/shm")
    has_room = shared.is_dir() and shutil.disk_usage(shared).free > NUM_BYTES_WANTED
    return Path(tempfile.mkdtemp(prefix="quarry-two-gpus-", dir=shared if has_room else None))


def chosen(names: str | None, stages: Stages) -> Stages:
    if names is None:
        return stages
    wanted = names.split(",")
    unknown = [name for name in wanted if name not in stages]
    if unknown:
        sys.exit(f"--only={','.join(unknown)}: no such stage; there are {', '.join(stages)}.")
    return {name: lanes for name, lanes in stages.items() if name in wanted}


def arguments_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", help="names of stages, with commas between")
    parser.add_argument("--budget-s", type=float, default=3600, help="all that runs ends by then")
    parser.add_argument("--scale", choices=SCALES, default="full", help="tiny: does it run at all?")
    parser.add_argument("--results", type=Path, default=BENCH / "results")
    parser.add_argument("--work", type=Path, help="for models and runs; kept for the next call")
    return parser.parse_args()


def main() -> None:
    deadline = time.monotonic()
    arguments = arguments_of()
    deadline += arguments.budget_s
    work = arguments.work or scratch()
    for folder in (work, arguments.results):
        folder.mkdir(parents=True, exist_ok=True)
    jobs = Jobs(work=work, scale=SCALES[arguments.scale])
    stages = chosen(arguments.only, jobs.stages())
    show = Show(jobs=jobs, results=arguments.results, deadline=deadline)
    try:
        show.begin()
        for name, lanes in stages.items():
            show.stage(name, lanes)
        say(f"\n{tables(show.content)}\n{arguments.results}")
    except RuntimeError as error:
        sys.exit(f"Neither models nor texts: {error}")
    finally:
        if arguments.work is None:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
