"""Measures what this machine can, each figure in a process of its own; writes JSON and a table.

    python bench/run.py                                          (= make bench)
    python bench/run.py --only train_7b,encode_7b --budget-s 500
    python bench/run.py --data BEIR_DIR                          (encoding on a CPU, too)

The result is bench/results/DATE_DEVICE.json, with a table (.md) and what the processes said (.log)
beside it. A second call on the same day and device adds to it. What fails, runs out of memory or
takes too long is a row with the reason.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measurements import SCALES, Measurement, Part, Scale, measurements
from processes import end, environment, reason
from table import table

BENCH = Path(__file__).resolve().parent
RESULT = "RESULT "
"""As in `measuring`, which would load torch here, too."""

NUM_BYTES_WANTED = 20e9
"""In memory-backed scratch space, if it is to be used: the largest model and some more."""

Content = dict[str, Any]


class NotMeasuredError(Exception):
    """Why there is no figure."""


@dataclass(kw_only=True)
class Runner:
    """Runs scripts of this folder, and keeps what they say."""

    work: Path
    log: Path
    data: Path | None
    scale: Scale
    prepared: dict[str, str | None] = field(default_factory=dict)

    def part(self, part: Part, *, on_cpu: bool) -> Content:
        """The result of one part; what it needs is made first.

        Raises:
            NotMeasuredError: it failed, or what it needs could not be made.
        """
        places = {"work": self.work, "texts": self.work / "texts", "data": self.data}
        if part.size is not None:
            places["model"] = self.work / f"model_{part.size}"
            self._prepare("random_model.py", [part.size, str(places["model"])])
            self._prepare("texts.py", self._texts_arguments(places["texts"]))
        arguments = [argument.format(**places) for argument in part.arguments]
        return self.script(part.script, arguments, time_limit_s=part.time_limit_s, on_cpu=on_cpu)

    def script(
        self, script: str, arguments: Sequence[str], *, time_limit_s: float, on_cpu: bool = False
    ) -> Content:
        """Runs a script and returns what its result line says, {} if it has none."""
        command = [sys.executable, str(BENCH / script), *arguments]
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"\n$ {' '.join(command[1:])}\n")
        start = time.perf_counter()
        output, code = _run(command, time_limit_s=time_limit_s, on_cpu=on_cpu)
        with self.log.open("a", encoding="utf-8") as log:
            log.write(output)
        if code is None:
            raise NotMeasuredError(f"ended after {time_limit_s:.0f} s, its time limit")
        if code:
            raise NotMeasuredError(reason(output))
        results = [line for line in output.splitlines() if line.startswith(RESULT)]
        result: Content = json.loads(results[-1].removeprefix(RESULT)) if results else {}
        return result | {"process_s": time.perf_counter() - start}

    def _prepare(self, script: str, arguments: Sequence[str]) -> None:
        key = " ".join([script, *arguments])
        if key not in self.prepared:
            _say(f"{script} {arguments[0]}", end=" ")
            start = time.perf_counter()
            try:
                done = self.work / f".{Path(arguments[0]).name}.{script}.done"
                if not done.exists():
                    self.script(script, arguments, time_limit_s=240)
                    done.touch()
                self.prepared[key] = None
                _say(f"{time.perf_counter() - start:.0f} s")
            except NotMeasuredError as error:
                self.prepared[key] = str(error)
                _say(str(error))
        if self.prepared[key] is not None:
            raise NotMeasuredError(f"{script}: {self.prepared[key]}")

    def _texts_arguments(self, folder: Path) -> list[str]:
        num_documents = max(self.scale.num_documents, self.scale.num_documents_small)
        return [
            str(folder), "--num-examples", str(self.scale.num_examples),
            "--num-documents", str(num_documents), "--num-words", str(self.scale.num_words),
        ]  # fmt: skip


def _run(command: Sequence[str], *, time_limit_s: float, on_cpu: bool) -> tuple[str, int | None]:
    """Output and exit code; no code: it was ended, with all that it had started."""
    process = subprocess.Popen(
        command, env=environment(on_cpu=on_cpu), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=time_limit_s)
        return output, process.returncode
    except subprocess.TimeoutExpired:
        end(process)
        output, _ = process.communicate()
        return output, None
    except KeyboardInterrupt:  # it has a session of its own and is not told
        end(process)
        raise


def obstacle(part: Part, measurement: Measurement, machine: Content, runner: Runner) -> str | None:
    """Why a part is not for this machine."""
    has_gpu, memory = machine["has_gpu"], machine["memory_gib"]
    if measurement.needs_data and runner.data is None:
        return "needs a BEIR folder: --data DIR"
    if measurement.on_cpu:
        return None
    if runner.scale.needs_gpu and not has_gpu:
        return "needs a CUDA device"
    if has_gpu and memory < part.at_least_gib:
        return f"needs {part.at_least_gib:.0f} GiB, this card has {memory:.0f}"
    if has_gpu and memory >= part.below_gib:
        return "is for smaller cards"
    return None


def measure(
    chosen: Sequence[Measurement], runner: Runner, content: Content, path: Path, *, deadline: float
) -> None:
    """Fills `content["parts"]`, written after each; begins nothing after the deadline."""
    number = len(content["runs"]) - 1
    machine = content["runs"][number]
    for measurement in chosen:
        parts = content["parts"].setdefault(measurement.name, {})
        for part in measurement.parts:
            reason = obstacle(part, measurement, machine, runner)
            if reason is None and time.perf_counter() > deadline:
                reason = "not begun: the budget of time was used"
            outcome = _outcome(part, measurement, runner, reason)
            # what an earlier call measured stays
            if "not_run" not in outcome or "not_run" in parts.get(part.name, {"not_run": ""}):
                parts[part.name] = {"run": number, **outcome}
            _write(content, path)


def _outcome(part: Part, measurement: Measurement, runner: Runner, reason: str | None) -> Content:
    """The result of a part, or why there is none."""
    if reason is not None:
        return {"not_run": reason}
    _say(f"{measurement.name}/{part.name}", end=": ")
    try:
        result = runner.part(part, on_cpu=measurement.on_cpu)
    except NotMeasuredError as error:
        _say(str(error))
        return {"not_run": str(error)}
    _say(_summary(result))
    return result


def _write(content: Content, path: Path) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(table(content), encoding="utf-8")


def _summary(result: Content) -> str:
    names = ("tokens_per_s", "search_s", "products_s", "peak_gib", "warm_up_s", "process_s")
    return ", ".join(f"{name} {result[name]:,.5g}" for name in names if name in result)


def _say(text: str, end: str = "\n") -> None:
    print(text, end=end, flush=True)


def _choose(names: str | None, all_of_them: Sequence[Measurement]) -> list[Measurement]:
    if names is None:
        return list(all_of_them)
    wanted = names.split(",")
    known = [measurement.name for measurement in all_of_them]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        sys.exit(f"--only={','.join(unknown)}: no such measurement; there are {', '.join(known)}.")
    return [measurement for measurement in all_of_them if measurement.name in wanted]


def _scratch() -> Path:
    """Where models go for this call: in memory if there is room, for disks may be slow."""
    shared = Path("/dev/shm")
    has_room = shared.is_dir() and shutil.disk_usage(shared).free > NUM_BYTES_WANTED
    return Path(tempfile.mkdtemp(prefix="quarry-bench-", dir=shared if has_room else None))


def _opened(folder: Path, machine: Content, *, scale: str) -> tuple[Path, Content]:
    """Where the result goes, and what is there from earlier calls on the same day and device."""
    date = datetime.datetime.now().astimezone().date().isoformat()
    device = re.sub(r"[^a-z0-9]+", "-", machine["device"].lower()).strip("-")
    path = folder / f"{date}_{device}{'' if scale == 'full' else '_' + scale}.json"
    content: Content = {"scale": scale, "runs": [], "parts": {}}
    if path.exists():
        content = json.loads(path.read_text(encoding="utf-8"))
    command = "python bench/run.py " + " ".join(sys.argv[1:])
    content["runs"].append({"command": command.strip(), "date": date, **machine})
    return path, content


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", help="names of measurements, with commas between")
    parser.add_argument("--budget-s", type=float, default=3600, help="begin nothing after that")
    parser.add_argument("--data", type=Path, help="a BEIR folder, to encode its corpus on the CPU")
    parser.add_argument("--scale", choices=SCALES, default="full", help="tiny: does it run at all?")
    parser.add_argument("--results", type=Path, default=BENCH / "results")
    parser.add_argument("--work", type=Path, help="for models and texts; kept for the next call")
    return parser.parse_args()


def main() -> None:
    start = time.perf_counter()
    arguments = _arguments()
    scale = SCALES[arguments.scale]
    _choose(arguments.only, measurements(scale, has_gpu=False))
    work = arguments.work or _scratch()
    for folder in (work, arguments.results):
        folder.mkdir(parents=True, exist_ok=True)
    log = work / "bench.log"
    runner = Runner(work=work, log=log, data=arguments.data, scale=scale)
    try:
        machine = runner.script("machine.py", ["--size", str(scale.matrix_size)], time_limit_s=120)
        path, content = _opened(arguments.results, machine, scale=arguments.scale)
        runner.log = path.with_suffix(".log")
        rate = machine["matrix_flop_per_s"] / 1e12
        _say(f"{machine['device']}, {machine['matrix_size']}^3 in bf16: {rate:,.4g} TFLOP/s")
        chosen = _choose(arguments.only, measurements(scale, has_gpu=machine["has_gpu"]))
        measure(chosen, runner, content, path, deadline=start + arguments.budget_s)
        _say(f"\n{table(content)}\n{path}")
    except NotMeasuredError as error:
        sys.exit(f"machine.py: {error}")
    finally:
        if arguments.work is None:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
