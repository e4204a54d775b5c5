"""Run measurements of `run.py` and `study.py` as processes; store figures or reasons in a file."""

from __future__ import annotations

import datetime
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, TypeVar

from measurements import Measurement, Part, Scale
from part_rules import (
    NotMeasuredError,
    obstacle,
    out_of_time,
    replaces,
    side_by_side,
    stated,
)
from processes import end, environment, reason
from result_line import results_in
from table import table

BENCH = Path(__file__).resolve().parent
NUM_BYTES_WANTED = 20e9
"""Free space needed to use /dev/shm as scratch space: more than the largest model."""

Content = dict[str, Any]


class Named(Protocol):
    """An item with a name that --only selects."""

    @property
    def name(self) -> str: ...


Item = TypeVar("Item", bound=Named)


@dataclass(kw_only=True)
class Runner:
    """Run scripts of this folder, and log their output.

    Attributes:
        data: a BEIR folder.
        tokenizer: folder of the tokenizer of models and texts; None: the stand-in.
        trained: folder of a model with trained weights.
        num_test_queries: of the generated BEIR folder; 0: none is generated.
        about: facts added to the result of each part.
        prepared: prepared models and texts -> the reason if it failed, else None.
    """

    work: Path
    log: Path
    scale: Scale
    data: Path | None = None
    tokenizer: Path | None = None
    trained: Path | None = None
    num_test_queries: int = 0
    about: Content = field(default_factory=dict)
    prepared: dict[str, str | None] = field(default_factory=dict)
    _preparing: Lock = field(default_factory=Lock)

    def part(self, part: Part, *, on_cpu: bool, stated: Sequence[str] = ()) -> Content:
        """Run one part and return its result; prepare its model and texts first.

        Args:
            stated: overrides after the part's own arguments.

        Raises:
            NotMeasuredError: it failed, or its model or texts could not be prepared.
        """
        kind = "" if self.tokenizer is None else "_with_tokenizer"
        texts = self.work / f"texts{kind}"
        places = {
            "work": self.work, "texts": texts, "data": self.data, "trained": self.trained,
            "beir": self.data or texts / "beir",
        }  # fmt: skip
        if part.size is not None:
            places["model"] = self.work / f"model_{part.size}{kind}"
            with self._preparing:
                self._prepare("random_model.py", [part.size, str(places["model"])])
                self._prepare("texts.py", self._texts_arguments(texts))
        arguments = [argument.format(**places) for argument in part.arguments]
        return self.script(
            part.script,
            [*arguments, *stated],
            time_limit_s=part.time_limit_s,
            gpus=() if on_cpu else part.gpus or None,
        )

    def script(
        self,
        script: str,
        arguments: Sequence[str],
        *,
        time_limit_s: float,
        gpus: Sequence[int] | None = None,
    ) -> Content:
        """Run a script; return the content of its result lines, {} if it has none.

        Args:
            gpus: visible GPUs; None: all.

        Raises:
            NotMeasuredError: it failed.
        """
        command = [sys.executable, str(BENCH / script), *arguments]
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"\n$ {' '.join(command[1:])}\n")
        start = time.perf_counter()
        output, code = _run(command, time_limit_s=time_limit_s, gpus=gpus)
        with self.log.open("a", encoding="utf-8") as log:
            log.write(output)
        result: Content = results_in(output)
        if code is None:
            raise NotMeasuredError(f"ended after {time_limit_s:.0f} s, its time limit", result)
        if code:
            raise NotMeasuredError(reason(output), result)
        return result | {"process_s": time.perf_counter() - start}

    def _prepare(self, script: str, arguments: Sequence[str]) -> None:
        key = " ".join([script, *arguments])
        if key not in self.prepared:
            say(f"{script} {arguments[0]}", end=" ")
            start = time.perf_counter()
            try:
                done = self.work / f".{Path(arguments[0]).name}.{script}.done"
                if self.tokenizer is not None:
                    done = done.with_name(f"{done.name}_with_tokenizer")
                    arguments = [*arguments, "--tokenizer", str(self.tokenizer)]
                if not done.exists():
                    self.script(script, arguments, time_limit_s=240)
                    done.touch()
                self.prepared[key] = None
                say(f"{time.perf_counter() - start:.0f} s")
            except NotMeasuredError as error:
                self.prepared[key] = str(error)
                say(str(error))
        if self.prepared[key] is not None:
            raise NotMeasuredError(f"{script}: {self.prepared[key]}")

    def _texts_arguments(self, folder: Path) -> list[str]:
        num_documents = max(self.scale.num_documents, self.scale.num_documents_small)
        return [
            str(folder), "--num-examples", str(self.scale.num_examples),
            "--num-documents", str(num_documents), "--num-words", str(self.scale.num_words),
            "--num-test-queries", str(min(self.num_test_queries, num_documents)),
        ]  # fmt: skip


def _run(
    command: Sequence[str], *, time_limit_s: float, gpus: Sequence[int] | None
) -> tuple[str, int | None]:
    """Return output and exit code; None as code: it was killed with its children at the limit."""
    process = subprocess.Popen(
        command, env=environment(gpus=gpus), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=time_limit_s)
        return output, process.returncode
    except subprocess.TimeoutExpired:
        end(process)
        output, _ = process.communicate()
        return output, None
    except KeyboardInterrupt:  # it has its own session and does not receive the signal
        end(process)
        raise


def measure(
    chosen: Sequence[Measurement],
    runner: Runner,
    content: Content,
    path: Path,
    *,
    deadline: float,
    render: Callable[[Content], str] = table,
) -> None:
    """Fill `content["parts"]` and write it after each group of parts that run side by side.

    A part that would exceed the deadline is not started.
    """
    number = len(content["runs"]) - 1
    for measurement in chosen:
        known = content["parts"].setdefault(measurement.name, {})
        for group in side_by_side(measurement.parts):
            left_s = deadline - time.perf_counter()

            def outcome(part: Part, left_s: float = left_s, one: Measurement = measurement) -> Any:
                return _outcome(part, one, runner, content, left_s=left_s)

            with ThreadPoolExecutor(len(group)) as pool:
                outcomes = list(pool.map(outcome, group))
            for part, new in zip(group, outcomes, strict=True):
                if replaces(new, known.get(part.name)):
                    known[part.name] = {"run": number, **runner.about, **new}
            path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            path.with_suffix(".md").write_text(render(content), encoding="utf-8")


def _outcome(
    part: Part, measurement: Measurement, runner: Runner, content: Content, *, left_s: float
) -> Content:
    """Return the result of a part, or the reason why there is none."""
    reason = obstacle(part, measurement, content["runs"][-1], runner) or out_of_time(part, left_s)
    if reason is not None:
        return {"not_run": reason}
    name = f"{measurement.name}/{part.name}"
    say(f"{name} begins")
    try:
        overrides = stated(part, content["parts"][measurement.name])
        result = runner.part(part, on_cpu=measurement.on_cpu, stated=overrides)
    except NotMeasuredError as error:
        say(f"{name}: {error}")
        return {**error.known, "not_run": str(error)}
    say(f"{name}: {_summary(result)}")
    return result


def _summary(result: Content) -> str:
    names = ("tokens_per_s", "search_s", "products_s", "peak_gib", "warm_up_s", "process_s")
    return ", ".join(f"{name} {result[name]:,.5g}" for name in names if name in result)


def say(text: str, end: str = "\n") -> None:
    print(text, end=end, flush=True)


def choose(names: str | None, items: Sequence[Item], *, what: str = "measurement") -> list[Item]:
    """Return the items that --only names, or all without it; exit on an unknown name."""
    if names is None:
        return list(items)
    wanted = names.split(",")
    known = [item.name for item in items]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        sys.exit(f"--only={','.join(unknown)}: no such {what}; there are {', '.join(known)}.")
    return [item for item in items if item.name in wanted]


def scratch() -> Path:
    """Return a scratch folder, in memory if there is room, since disks may be slow."""
    shared = Path("/dev/shm")
    has_room = shared.is_dir() and shutil.disk_usage(shared).free > NUM_BYTES_WANTED
    return Path(tempfile.mkdtemp(prefix="quarry-bench-", dir=shared if has_room else None))


def opened(
    folder: Path, machine: Content, *, scale: str, script: str, prefix: str = ""
) -> tuple[Path, Content]:
    """Return the results file and its content from earlier calls on that day and device."""
    date = datetime.datetime.now().astimezone().date().isoformat()
    device = re.sub(r"[^a-z0-9]+", "-", machine["device"].lower()).strip("-")
    path = folder / f"{prefix}{date}_{device}{'' if scale == 'full' else '_' + scale}.json"
    content: Content = {"scale": scale, "runs": [], "parts": {}}
    if path.exists():
        content = json.loads(path.read_text(encoding="utf-8"))
    command = typed(script, sys.argv[1:])
    content["runs"].append({"command": command, "date": date, **machine})
    return path, content


def typed(script: str, arguments: Sequence[str]) -> str:
    """Return the command without its own folders; other folders by their names only."""
    text = " ".join(["python", f"bench/{script}", *arguments])
    text = re.sub(r" --(work|results)[ =]\S+", "", text)
    return re.sub(r"(?<=[ =])/\S*/(?=\S)", "", text)


def look(runner: Runner) -> Content:
    """Return machine.py's report on this machine; exit if it fails."""
    try:
        size = str(runner.scale.matrix_size)
        machine = runner.script("machine.py", ["--size", size], time_limit_s=120)
    except NotMeasuredError as error:
        sys.exit(f"machine.py: {error}")
    rate = machine["matrix_flop_per_s"] / 1e12
    say(f"{machine['device']}, {machine['matrix_size']}^3 in bf16: {rate:,.4g} TFLOP/s")
    return machine
