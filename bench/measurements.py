"""Declare the measurements of `run.py`, in order of importance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PEER = "sentence-transformers"
BATCH_NAMES = ("smallest", "middle", "largest")
NUM_CPU_RANKS = 2
"""Ranks that a machine without GPUs runs, over gloo."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A reference to a part whose chosen settings another part states.

    Attributes:
        part: name of a part of the same measurement, whose `auto` choices are stated here.
        in_one_pass: further overrides where that part has no GradCache chunks.
    """

    part: str
    in_one_pass: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Part:
    """One process of a measurement.

    Attributes:
        script: in this folder; prints one line with its result.
        arguments: of the script; {work}, {texts}, {model}, {data}, {beir}, {trained} are filled in.
        size: of the model that it needs, see random_model.py; None: it makes its own.
        at_least_gib, below_gib: memory range of the cards that it is for.
        time_limit_s: it is killed after that.
        estimate_s: it is not started with less time left.
        needs_gpu: even at a scale that otherwise needs none.
        needs: options that it needs: "data", "trained".
        gpus: indices of the visible GPUs; (): all. A machine without GPUs runs `NUM_CPU_RANKS`
            ranks.
        is_beside: run it at the same time as the part before it.
        settings: settings of another part to state; None: `arguments` are complete.
    """

    name: str
    script: str
    arguments: tuple[str, ...]
    size: str | None = None
    at_least_gib: float = 0
    below_gib: float = float("inf")
    time_limit_s: float = 240
    estimate_s: float = 0
    needs_gpu: bool = False
    needs: tuple[str, ...] = ()
    gpus: tuple[int, ...] = ()
    is_beside: bool = False
    settings: Settings | None = None


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Parts that are compared with one another, and so run in one call.

    Attributes:
        needs_data: whether it needs the BEIR folder of --data.
        on_cpu: do not use a GPU.
    """

    name: str
    parts: tuple[Part, ...]
    needs_data: bool = False
    on_cpu: bool = False


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The sizes of models, texts and measurements.

    Attributes:
        large, small: sizes of models, see random_model.py.
        num_words: vocabulary of the texts.
        num_steps, num_peer_steps: timed training steps, in windows of a quarter of them.
        num_times_small: factor of the steps of the small model, whose steps are short.
        num_documents, num_documents_small: encoded by the large and the small model.
        contrastive_batches: numbers of queries, ascending.
        grad_cache_chunk_tokens: chunk size of GradCache where memory is compared.
        search, search_on_cpu: queries, documents, dimensions.
        needs_gpu: whether the large measurements are refused on a CPU.
    """

    large: str = "7B"
    small: str = "0.5B"
    num_words: int = 151_000
    num_examples: int = 2048
    num_documents: int = 4096
    num_documents_small: int = 16_384
    num_queries: int = 8
    num_queries_large: int = 16
    num_steps: int = 24
    num_peer_steps: int = 12
    num_times_small: int = 3
    num_workers: int = 2
    contrastive_batches: tuple[int, int, int] = (8, 64, 512)
    grad_cache_chunk_tokens: int = 8192
    max_tokens_per_batch: int = 32_768
    search: tuple[int, int, int] = (6_980, 1_000_000, 3_584)
    search_on_cpu: tuple[int, int, int] = (300, 100_000, 256)
    matrix_size: int = 8192
    needs_gpu: bool = True


FULL = Scale()
TINY = Scale(
    large="tiny", small="tiny", num_words=1000, num_examples=64, num_documents=256,
    num_documents_small=256, num_queries=2, num_queries_large=4, num_steps=4, num_peer_steps=4,
    num_times_small=1, num_workers=0, contrastive_batches=(2, 4, 8), grad_cache_chunk_tokens=1024,
    max_tokens_per_batch=4096, search=(20, 10_000, 32), search_on_cpu=(20, 10_000, 32),
    matrix_size=256, needs_gpu=False,
)  # fmt: skip
"""For the test that everything runs; its numbers mean nothing."""

SCALES = {"full": FULL, "tiny": TINY}


def measurements(scale: Scale, *, has_gpu: bool) -> list[Measurement]:
    """Return all measurements, the most important first."""
    compiled = (f"model.compile={str(has_gpu).lower()}",)
    train = _Training(scale=scale, size=scale.large, extra=compiled)
    train_small = _Training(
        scale=scale, size=scale.small, extra=compiled, num_times=scale.num_times_small
    )
    encode = _Encoding(scale=scale, size=scale.large, num_texts=scale.num_documents, extra=compiled)
    encode_small = _Encoding(
        scale=scale, size=scale.small, num_texts=scale.num_documents_small, extra=compiled
    )
    few, many = scale.num_queries, scale.num_queries_large
    return [
        Measurement(name="train_7b", parts=(train.ours("ours", few), train.peer(PEER, few))),
        Measurement(
            name="encode_7b",
            parts=(
                encode.ours("ours"),
                encode.ours("ours_fp8", "model.linear_precision=fp8"),
                encode.other(PEER, "encode_sentence_transformers.py"),
                encode.other("transformers", "encode_transformers.py", num_passes=1),
            ),
        ),
        Measurement(
            name="train_7b_fp8", parts=(train.ours("ours_fp8", few, "model.linear_precision=fp8"),)
        ),
        Measurement(
            name="train_7b_same_memory",
            parts=(train.ours("ours", few, "model.gradient_checkpointing=true"),),
        ),
        Measurement(
            name="train_7b_16x16",
            parts=(
                train.ours("ours", many, at_least_gib=125),
                train.ours(
                    "ours_in_chunks", many, "data.grad_cache_chunk_tokens=10240", below_gib=125
                ),
            ),
        ),
        Measurement(name="search", parts=(_search(scale.search),)),
        Measurement(
            name="train_05b",
            parts=(train_small.ours("ours", many), train_small.peer(PEER, many)),
        ),
        Measurement(
            name="encode_05b",
            parts=(
                encode_small.ours("ours"),
                encode_small.other(PEER, "encode_sentence_transformers.py"),
            ),
        ),
        Measurement(
            name="grad_cache_memory",
            parts=tuple(
                _contrastive_batch(train_small, name, number)
                for name, number in zip(BATCH_NAMES, scale.contrastive_batches, strict=True)
            ),
        ),
        Measurement(name="encode_scifact", parts=_scifact(), needs_data=True, on_cpu=True),
        Measurement(name="search_on_cpu", parts=(_search(scale.search_on_cpu),), on_cpu=True),
    ]


@dataclass(frozen=True, kw_only=True)
class _Training:
    scale: Scale
    size: str
    extra: tuple[str, ...]
    num_times: int = 1

    def ours(
        self,
        name: str,
        num_queries: int,
        *overrides: str,
        at_least_gib: float = 0,
        below_gib: float = float("inf"),
    ) -> Part:
        more = (*self.extra, f"data.num_workers={self.scale.num_workers}", *overrides)
        arguments = self._arguments(num_queries, self.scale.num_steps, num_warm_up=6)
        return Part(
            name=name,
            script="train_ours.py",
            arguments=(*arguments, *more),
            size=self.size,
            at_least_gib=at_least_gib,
            below_gib=below_gib,
        )

    def peer(self, name: str, num_queries: int) -> Part:
        arguments = self._arguments(num_queries, self.scale.num_peer_steps, num_warm_up=3)
        return Part(
            name=name,
            script="train_sentence_transformers.py",
            arguments=(*arguments, "--num-workers", str(self.scale.num_workers)),
            size=self.size,
            time_limit_s=150,
        )

    def _arguments(self, num_queries: int, num_steps: int, *, num_warm_up: int) -> Sequence[str]:
        num_steps *= self.num_times
        return (
            "--model", "{model}", "--texts", "{texts}", "--work", "{work}",
            "--num-queries", str(num_queries), "--num-warm-up", str(num_warm_up),
            "--num-steps", str(num_steps), "--num-steps-per-window", str(num_steps // 4),
        )  # fmt: skip


def _contrastive_batch(train: _Training, name: str, num_queries: int) -> Part:
    """Return a part that measures peak memory only: two steps, without compilation."""
    chunk = train.scale.grad_cache_chunk_tokens
    return Part(
        name=name,
        script="train_ours.py",
        arguments=(
            "--model", "{model}", "--texts", "{texts}", "--work", "{work}",
            "--num-queries", str(num_queries), "--num-warm-up", "1", "--num-steps", "2",
            "--num-steps-per-window", "1",
            f"data.grad_cache_chunk_tokens={chunk}", "model.compile=false",
        ),
        size=train.size,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Encoding:
    scale: Scale
    size: str
    num_texts: int
    extra: tuple[str, ...]

    def ours(self, name: str, *overrides: str) -> Part:
        budget = f"evaluation.max_tokens_per_batch={self.scale.max_tokens_per_batch}"
        part = self.other(name, "encode_ours.py")
        arguments = (*part.arguments, *self.extra, budget, *overrides)
        return Part(name=name, script=part.script, arguments=arguments, size=self.size)

    def other(self, name: str, script: str, *, num_passes: int = 3) -> Part:
        arguments = (
            "--model", "{model}", "--corpus", "{texts}/corpus.jsonl",
            "--embeddings", f"{{work}}/embeddings_{self.size}.npy",
            "--num-texts", str(self.num_texts), "--num-passes", str(num_passes),
        )  # fmt: skip
        return Part(name=name, script=script, arguments=arguments, size=self.size)


def _search(numbers: tuple[int, int, int]) -> Part:
    names = ("--num-queries", "--num-documents", "--dim")
    pairs = [(name, str(number)) for name, number in zip(names, numbers, strict=True)]
    return Part(
        name="ours", script="search.py", arguments=tuple(text for pair in pairs for text in pair)
    )


def _scifact() -> tuple[Part, ...]:
    common = (
        "--model", "{work}/qwen-tiny", "--corpus", "{data}/corpus.jsonl",
        "--embeddings", "{work}/embeddings_scifact.npy",
    )  # fmt: skip
    return (
        Part(name="folder", script="qwen_tiny.py", arguments=("{work}/qwen-tiny",)),
        Part(
            name="ours",
            script="encode_ours.py",
            arguments=(*common, "model/pooling=mean", "evaluation.max_tokens_per_batch=4096"),
            time_limit_s=600,
        ),
        Part(
            name=PEER,
            script="encode_sentence_transformers.py",
            arguments=(*common, "--batch-size", "32"),  # their default; 128 is for GPUs
            time_limit_s=600,
        ),
    )
