"""Declare the measurements of `many_gpus.py`, in order of importance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from measurements import Measurement, Part, Scale, Settings

STRATEGIES = ("ddp", "zero2", "zero3")
DEVICES = (1, 2, 4, 8)
"""Numbers of GPUs that the tables have rows for."""

AUTO_ON_ONE = "1"
"""Part of `lora_ddp`: one GPU with what `auto` chooses there."""

NUM_QUERIES, CONTRASTIVE_BATCH_SIZE = 128, 32
"""Queries of an optimizer step and of a contrastive batch of `experiment=sft_msmarco`."""

TINY = ("data.global_batch_size=4", "data.num_workers=0")
TINY_CONTRASTIVE_BATCH_SIZE = 2

ALL_WEIGHTS = ("model/adapter=none", "trainer.precision=bf16-true")
"""Overrides that train all weights. No checkpoint is timed: for 7B it takes 106 GB."""

REFRESHING = (
    "callbacks=refresh_negatives", "callbacks.refresh_negatives.every_n_steps=2",
    "callbacks.refresh_negatives.num_negatives=3",
    "callbacks.refresh_negatives.filter.relative_margin=null",
)  # fmt: skip
"""Overrides that mine hard negatives before a kill and after it."""

QUERIES_KEY = "loss.contrastive_batch_size"
LIMIT_S = 300


def equal_to(num_devices: int) -> str:
    """Return the name of the part on one GPU with the settings of `num_devices`."""
    return f"1_equal_to_{num_devices}"


@dataclass(frozen=True, kw_only=True)
class ManyGpusRows:
    """The measurements of `many_gpus.py`.

    Attributes:
        devices: numbers of GPUs, ascending.
        is_tiny: a smoke test, with fewer queries and runs.
        has_gpu: training compiles its layers.
        num_gpus: of this machine; without GPUs the ranks that its CPUs run.
    """

    scale: Scale
    devices: tuple[int, ...]
    is_tiny: bool
    has_gpu: bool
    num_gpus: int

    def measurements(self) -> list[Measurement]:
        """Return all rows, the most important first."""
        return [
            self._lora("ddp"),
            self._encoding(),
            self._hangs(),
            self._survival("survival"),
            self._survival("survival_refreshing", *REFRESHING),
            self._sweep(),
            self._lora("zero2"),
            self._full("full_zero3", "zero3", devices=(2, 4), estimate_s=160),
            self._lora("zero3"),
            self._full("full_zero3_offload", "zero3_offload", devices=(2,), estimate_s=280),
        ]

    @property
    def _many(self) -> list[int]:
        return [number for number in self.devices if number > 1]

    def _lora(self, strategy: str) -> Measurement:
        """Return the recipe on several GPUs, and on one GPU with their settings, side by side."""
        parts = [
            self._recipe(str(number), tuple(range(number)), f"strategy={strategy}")
            for number in self._many
        ]
        parts += self._on_one(strategy)
        return Measurement(name=f"lora_{strategy}", parts=tuple(parts))

    def _on_one(self, strategy: str) -> list[Part]:
        """Return the parts on one GPU, each on a GPU of its own, for each available number."""
        parts: list[Part] = []
        numbers = [number for number in self._many if number <= self.num_gpus]
        for place, number in enumerate(numbers):
            share = max(1, self._contrastive_batch_size // number)
            part = self._recipe(
                equal_to(number),
                (place,),
                is_beside=place > 0,
                settings=Settings(part=str(number), in_one_pass=(f"{QUERIES_KEY}={share}",)),
                compile_layers=strategy != "zero3",
            )
            parts.append(part)
        if strategy == "ddp" and 1 in self.devices:
            place = len(numbers)
            parts.append(self._recipe(AUTO_ON_ONE, (place,), is_beside=place > 0))
        return parts

    @property
    def _contrastive_batch_size(self) -> int:
        return TINY_CONTRASTIVE_BATCH_SIZE if self.is_tiny else CONTRASTIVE_BATCH_SIZE

    def _recipe(
        self,
        name: str,
        gpus: tuple[int, ...],
        *overrides: str,
        is_beside: bool = False,
        settings: Settings | None = None,
        compile_layers: bool = True,
        num_steps: int = 3,
        estimate_s: float = 170,
    ) -> Part:
        is_zero3 = any(one.startswith("strategy=zero3") for one in overrides)
        compiled = self.has_gpu and compile_layers and not is_zero3  # ZeRO 3 refuses it
        saves = () if ALL_WEIGHTS[0] in overrides and not self.is_tiny else ("--saves",)
        tiny = TINY if self.is_tiny else ()
        if self.is_tiny and settings is None:
            tiny = (*tiny, f"{QUERIES_KEY}={TINY_CONTRASTIVE_BATCH_SIZE}")
        return Part(
            name=name,
            script="train_study.py",
            arguments=(
                "--model", "{model}", "--texts", "{texts}", "--work", "{work}", *saves,
                "--num-steps", str(num_steps), f"trainer.devices={len(gpus)}",
                f"model.compile={str(compiled).lower()}", *overrides, *tiny,
            ),
            size=self.scale.large,
            estimate_s=self._seconds(estimate_s),
            time_limit_s=LIMIT_S,
            gpus=gpus,
            is_beside=is_beside,
            settings=settings,
        )  # fmt: skip

    def _encoding(self) -> Measurement:
        """Return `eval.py` on each number of GPUs; TREC run files are compared with one GPU's."""
        parts = []
        for number in self.devices:
            strategy = () if number == 1 else ("strategy=ddp",)
            part = Part(
                name=str(number),
                script="eval_study.py",
                arguments=(
                    "--model", "{model}", "--data", "{beir}", "--work", "{work}",
                    "experiment=zero_shot", "model=qwen-instruct", f"trainer.devices={number}",
                    *strategy, *(("prompt=none",) if self.is_tiny else ()),
                ),
                size=self.scale.large,
                estimate_s=self._seconds(60 + 90 / number),
                time_limit_s=LIMIT_S,
                gpus=tuple(range(number)),
            )  # fmt: skip
            parts.append(part)
        return Measurement(name="encoding", parts=tuple(parts))

    def _survival(self, name: str, *overrides: str) -> Measurement:
        """Return killed and resumed runs on two GPUs, which all strategies share, untimed."""
        tiny = ("--time-limit-s", "200") if self.is_tiny else ()
        strategies = ("ddp", "zero3") if self.is_tiny else STRATEGIES
        parts = [
            self._on_two(
                strategy, "survive.py", "--strategy", strategy, *tiny, *overrides,
                size=self.scale.small, estimate_s=130, is_beside=place > 0 and not self.is_tiny,
            )
            for place, strategy in enumerate(strategies)
        ]  # fmt: skip
        return Measurement(name=name, parts=tuple(parts))

    def _hangs(self) -> Measurement:
        numbers = ("--num-runs", "1", "--time-limit-s", "200") if self.is_tiny else ()
        part = self._on_two("2", "hangs.py", *numbers, size="tiny", estimate_s=140)
        return Measurement(name="hangs", parts=(part,))

    def _sweep(self) -> Measurement:
        part = Part(
            name="jobs",
            script="gpu_sweep.py",
            arguments=(
                "--model", "{model}", "--texts", "{texts}", "--work", "{work}",
                "--num-gpus", str(self.num_gpus),
            ),
            size="tiny",
            estimate_s=self._seconds(70),
            needs_gpu=True,
        )  # fmt: skip
        return Measurement(name="sweep", parts=(part,))

    def _full(
        self, name: str, strategy: str, *, devices: Sequence[int], estimate_s: float
    ) -> Measurement:
        parts = tuple(
            self._recipe(
                str(number), tuple(range(number)), f"strategy={strategy}", *ALL_WEIGHTS,
                num_steps=2, estimate_s=estimate_s,
            )
            for number in self._many if number in devices
        )  # fmt: skip
        return Measurement(name=name, parts=parts)

    def _on_two(
        self,
        name: str,
        script: str,
        *arguments: str,
        size: str,
        estimate_s: float,
        is_beside: bool = False,
    ) -> Part:
        return Part(
            name=name,
            script=script,
            arguments=(
                "--model", "{model}", "--texts", "{texts}", "--work", "{work}", *arguments,
            ),
            size=size,
            estimate_s=self._seconds(estimate_s),
            time_limit_s=540,
            gpus=(0, 1),
            is_beside=is_beside,
        )  # fmt: skip

    def _seconds(self, estimate_s: float) -> float:
        return 1 if self.is_tiny else estimate_s
