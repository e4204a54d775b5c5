"""Run measurements of `run.py` and `study.py` as processes; keep figures or reasons in a file."""

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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from measurements import Measurement, Part, Scale
from processes import end, environment, reason
from result_line import results_in
from table import table

BENCH = Path(__file__).resolve().parent
NUM_BYTES_WANTED = 20e9
"""In memory-backed scratch space, if it is to be used: the largest model and some more."""

NOT_BEGUN = "not begun"
"""What the reason begins with where no time was left."""

Content = dict[str, Any]


class Named(Protocol):
    """Have a name that --only picks."""

    @property
    def name(self) -> str: ...


Item = TypeVar("Item", bound=Named)


class NotMeasuredError(Exception):
    """Say why there is no figure.

    Attributes:
        known: what the process had handed over before it failed.
    """

    def __init__(self, reason: str, known: Content | None = None) -> None:
        super().__init__(reason)
        self.known = known or {}


@dataclass(kw_only=True)
class Runner:
    """Run scripts of this folder, and keep their output.

    Attributes:
        data: a BEIR folder.
        tokenizer: folder of the tokenizer of models and texts; None: the stand-in.
        trained: folder of a model with trained weights.
        num_test_queries: of the BEIR folder among the texts; 0: there is none.
        about: added to the result of each part.
        prepared: models and texts of this call; the reason, where one could not be made.
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

    def part(self, part: Part, *, on_cpu: bool) -> Content:
        """Return the result of one part; make the model and texts that it needs first.

        Raises:
            NotMeasuredError: it failed, or what it needs could not be made.
        """
        kind = "" if self.tokenizer is None else "_with_tokenizer"
        texts = self.work / f"texts{kind}"
        places = {
            "work": self.work, "texts": texts, "data": self.data, "trained": self.trained,
            "beir": self.data or texts / "beir",
        }  # fmt: skip
        if part.size is not None:
            places["model"] = self.work / f"model_{part.size}{kind}"
            self._prepare("random_model.py", [part.size, str(places["model"])])
            self._prepare("texts.py", self._texts_arguments(texts))
        arguments = [argument.format(**places) for argument in part.arguments]
        return self.script(part.script, arguments, time_limit_s=part.time_limit_s, on_cpu=on_cpu)

    def script(
        self, script: str, arguments: Sequence[str], *, time_limit_s: float, on_cpu: bool = False
    ) -> Content:
        """Run a script; return what its result lines say, {} if it has none.

        Raises:
            NotMeasuredError: it failed.
        """
        command = [sys.executable, str(BENCH / script), *arguments]
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"\n$ {' '.join(command[1:])}\n")
        start = time.perf_counter()
        output, code = _run(command, time_limit_s=time_limit_s, on_cpu=on_cpu)
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
    """Return why a part is not for this machine, None if it is."""
    has_gpu, memory = machine["has_gpu"], machine["memory_gib"]
    needs = {*part.needs, *(["data"] if measurement.needs_data else [])}
    for name, what in (("data", "a BEIR folder"), ("trained", "a folder with trained weights")):
        if name in needs and getattr(runner, name) is None:
            return f"needs {what}: --{name} DIR"
    if measurement.on_cpu:
        return None
    if (runner.scale.needs_gpu or part.needs_gpu) and not has_gpu:
        return "needs a CUDA device"
    if has_gpu and memory < part.at_least_gib:
        return f"needs {part.at_least_gib:.0f} GiB, this card has {memory:.0f}"
    if has_gpu and memory >= part.below_gib:
        return "is for smaller cards"
    return None


def out_of_time(part: Part, left_s: float) -> str | None:
    """Return why a part is not begun with so many seconds left, None if it is."""
    if left_s <= 0:
        return f"{NOT_BEGUN}: the budget of time was used"
    if left_s < part.estimate_s:
        return f"{NOT_BEGUN}: it takes about {part.estimate_s:.0f} s, and {left_s:.0f} s are left"
    return None


def measure(
    chosen: Sequence[Measurement],
    runner: Runner,
    content: Content,
    path: Path,
    *,
    deadline: float,
    render: Callable[[Content], str] = table,
) -> None:
    """Fill `content["parts"]`, written after each; begin nothing that could not end in time."""
    number = len(content["runs"]) - 1
    machine = content["runs"][number]
    for measurement in chosen:
        parts = content["parts"].setdefault(measurement.name, {})
        for part in measurement.parts:
            reason = obstacle(part, measurement, machine, runner)
            reason = reason or out_of_time(part, deadline - time.perf_counter())
            outcome = _outcome(part, measurement, runner, reason)
            if replaces(outcome, parts.get(part.name)):
                parts[part.name] = {"run": number, **runner.about, **outcome}
            path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            path.with_suffix(".md").write_text(render(content), encoding="utf-8")


def replaces(outcome: Content, known: Content | None) -> bool:
    """Return whether an outcome replaces an earlier call's: figures stay, then reasons."""
    if known is None or "not_run" not in outcome:
        return True
    return "not_run" in known and not outcome["not_run"].startswith(NOT_BEGUN)


def _outcome(part: Part, measurement: Measurement, runner: Runner, reason: str | None) -> Content:
    """Return the result of a part, or why there is none."""
    if reason is not None:
        return {"not_run": reason}
    say(f"{measurement.name}/{part.name}", end=": ")
    try:
        result = runner.part(part, on_cpu=measurement.on_cpu)
    except NotMeasuredError as error:
        say(str(error))
        return {**error.known, "not_run": str(error)}
    say(_summary(result))
    return result


def _summary(result: Content) -> str:
    names = ("tokens_per_s", "search_s", "products_s", "peak_gib", "warm_up_s", "process_s")
    return ", ".join(f"{name} {result[name]:,.5g}" for name in names if name in result)


def say(text: str, end: str = "\n") -> None:
    print(text, end=end, flush=True)


def choose(names: str | None, items: Sequence[Item], *, what: str = "measurement") -> list[Item]:
    """Return the items that --only names, all without it; exit on an unknown name."""
    if names is None:
        return list(items)
    wanted = names.split(",")
    known = [item.name for item in items]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        sys.exit(f"--only={','.join(unknown)}: no such {what}; there are {', '.join(known)}.")
    return [item for item in items if item.name in wanted]


def scratch() -> Path:
    """Where models go for this call: in memory if there is room, for disks may be slow."""
    shared = Path("/dev/shm")
    has_room = shared.is_dir() and shutil.disk_usage(shared).free > NUM_BYTES_WANTED
    return Path(tempfile.mkdtemp(prefix="quarry-bench-", dir=shared if has_room else None))


def opened(
    folder: Path, machine: Content, *, scale: str, script: str, prefix: str = ""
) -> tuple[Path, Content]:
    """Return the results file and what earlier calls on the same day and device put there."""
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
    """Return the command without where its files lay; other folders by their names alone."""
    text = " ".join(["python", f"bench/{script}", *arguments])
    text = re.sub(r" --(work|results)[ =]\S+", "", text)
    return re.sub(r"(?<=[ =])/\S*/(?=\S)", "", text)


def look(runner: Runner) -> Content:
    """Return what machine.py says of this machine; exit where it cannot say."""
    try:
        size = str(runner.scale.matrix_size)
        machine = runner.script("machine.py", ["--size", size], time_limit_s=120)
    except NotMeasuredError as error:
        sys.exit(f"machine.py: {error}")
    rate = machine["matrix_flop_per_s"] / 1e12
    say(f"{machine['device']}, {machine['matrix_size']}^3 in bf16: {rate:,.4g} TFLOP/s")
    return machine
