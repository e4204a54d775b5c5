"""Declare the measurements of `study.py`, in order of importance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from measurements import Part, Scale

STUDY = "study"
"""The measurement that the rows are parts of."""

FP8 = "model.linear_precision=fp8"
RECIPE = "recipe"
CACHED = "sentence_transformers_cached"
CACHED_NO_CHECKPOINTING = "sentence_transformers_cached_no_checkpointing"
BATCHED = "sentence_transformers_8x16"
FP8_TRAINED = "fp8_trained"
ENCODING = "encoding"
ENCODING_FP8 = "encoding_fp8"
ENCODING_PEER = "encoding_sentence_transformers"
LAST_LAYER = "training_last_layer"
MINI_BATCH = ("--mini-batch", "32")
LIMITS_GIB = (40, 24, 48, 80)

TRAINING_S = 170
"""Seconds of a training row on one H200: import, load, compile, four optimizer steps."""

LIMIT_S = 300

NUM_ENCODED = 2048
"""Texts of a pass: about five seconds with a 7B on one H200."""

PEER_PROMPT = "promptreps_instruct"
"""The prompt with which sentence-transformers encodes the same strings."""

PROMPTS = ("--query", "Query:", "--passage", "Passage: ")
"""The prompts of `prompt=repllama`, for sentence-transformers."""

TINY_RECIPE = ("data.global_batch_size=4", "loss.contrastive_batch_size=2")
"""Two contrastive batches an optimizer step, where the recipe has four of 32 queries."""


@dataclass(frozen=True, kw_only=True)
class StudyRows:
    """The rows of `study.py`.

    Attributes:
        is_tiny: a smoke test, with fewer queries an optimizer step.
        has_gpu: training compiles its layers. `model.compile=auto` would not compile for so few
            steps, but does for a complete run.
    """

    scale: Scale
    is_tiny: bool
    has_gpu: bool

    def parts(self) -> list[Part]:
        """Return all rows, the most important first."""
        return [
            self._recipe(RECIPE),
            self._recipe(f"{RECIPE}_dropout_0", "model.adapter.dropout=0"),
            self._recipe(f"{RECIPE}_fp8", FP8),
            self._limited(LIMITS_GIB[0]),
            self._recipe(
                f"{RECIPE}_checkpointing",
                "model.gradient_checkpointing=true",
            ),
            self._recipe(
                f"{RECIPE}_selective",
                "model.gradient_checkpointing=selective",
            ),
            self._recipe(
                f"{RECIPE}_no_checkpointing",
                "model.gradient_checkpointing=false",
                "data.grad_cache_chunk_tokens=24576",
            ),
            self._recipe(f"{RECIPE}_not_compiled", compile_layers=False),
            self._recipe(f"{RECIPE}_kl", "loss=kl_distillation"),
            self._recipe(f"{RECIPE}_sum", "loss=sum"),
            *map(self._limited, LIMITS_GIB[1:]),
            self._peer(CACHED, 32, *MINI_BATCH),
            self._peer(CACHED_NO_CHECKPOINTING, 32, *MINI_BATCH, "--without-checkpointing"),
            self._peer(BATCHED, 8),
            self._zero_shot(),
            self._fp8_trained(),
            self._encoding(ENCODING, estimate_s=170),
            self._encoding(ENCODING_FP8, FP8, prompts=(PEER_PROMPT,), estimate_s=90),
            self._encoding_peer(),
            self._last_layer(),
        ]

    def _recipe(
        self,
        name: str,
        *overrides: str,
        compile_layers: bool = True,
        limit_gib: float | None = None,
    ) -> Part:
        limit = [] if limit_gib is None else ["--limit-gib", f"{limit_gib:g}"]
        compiled = str(compile_layers and self.has_gpu).lower()
        tiny = TINY_RECIPE if self.is_tiny else ()
        return Part(
            name=name,
            script="train_study.py",
            arguments=(
                "--model", "{model}", "--texts", "{texts}", "--work", "{work}", *limit,
                f"model.compile={compiled}", *overrides, *tiny,
            ),
            size=self.scale.large,
            estimate_s=self._seconds(TRAINING_S),
            time_limit_s=LIMIT_S,
            needs_gpu=limit_gib is not None or FP8 in overrides,
        )  # fmt: skip

    def _limited(self, limit_gib: int) -> Part:
        return self._recipe(f"{RECIPE}_{limit_gib}_gib", limit_gib=limit_gib)

    def _peer(self, name: str, num_queries: int, *more: str) -> Part:
        """Return a row of sentence-transformers: a step is one contrastive batch."""
        num_queries = 2 if self.is_tiny else num_queries
        return Part(
            name=name,
            script="train_sentence_transformers.py",
            arguments=(
                "--model", "{model}", "--texts", "{texts}", "--work", "{work}",
                "--num-queries", str(num_queries), "--r", "32", "--dropout", "0.1", *PROMPTS,
                "--num-workers", str(self.scale.num_workers), "--num-warm-up", "1",
                "--num-steps", "4", "--num-steps-per-window", "1", *more,
            ),
            size=self.scale.large,
            estimate_s=self._seconds(120),
            time_limit_s=LIMIT_S,
        )  # fmt: skip

    def _zero_shot(self) -> Part:
        return Part(
            name="zero_shot",
            script="eval_study.py",
            arguments=(
                "--model", "{model}", "--data", "{beir}", "--work", "{work}",
                "experiment=zero_shot", "model=qwen-instruct",
            ),
            size=self.scale.large,
            estimate_s=self._seconds(140),
            time_limit_s=LIMIT_S,
        )  # fmt: skip

    def _fp8_trained(self) -> Part:
        return Part(
            name=FP8_TRAINED,
            script="eval_study.py",
            arguments=(
                "--model", "{trained}", "--data", "{data}", "--work", "{work}",
                FP8, "evaluation.compare_dtype=bf16",
            ),
            estimate_s=self._seconds(60),
            needs_gpu=True,
            needs=("trained", "data"),
        )  # fmt: skip

    def _encoding(
        self, name: str, *overrides: str, prompts: Sequence[str] = (), estimate_s: float
    ) -> Part:
        """Return a row of `encode_prefix.py`, with compiled layers, as for a large corpus."""
        chosen = ("--prompt", ",".join(prompts)) if prompts else ()
        compiled = str(self.has_gpu).lower()
        return Part(
            name=name,
            script="encode_prefix.py",
            arguments=(
                "--model", "{model}", "--corpus", "{texts}/corpus.jsonl", "--work", "{work}",
                "--num-texts", str(NUM_ENCODED), *chosen, f"model.compile={compiled}", *overrides,
            ),
            size=self.scale.large,
            estimate_s=self._seconds(estimate_s),
            time_limit_s=LIMIT_S,
            needs_gpu=FP8 in overrides,
        )  # fmt: skip

    def _encoding_peer(self) -> Part:
        return Part(
            name=ENCODING_PEER,
            script="encode_sentence_transformers.py",
            arguments=(
                "--model", "{model}", "--corpus", "{texts}/corpus.jsonl",
                "--embeddings", f"{{work}}/embeddings_{PEER_PROMPT}.npy",
                "--num-texts", str(NUM_ENCODED), "--prompt", PEER_PROMPT,
            ),
            size=self.scale.large,
            estimate_s=self._seconds(60),
            time_limit_s=LIMIT_S,
        )  # fmt: skip

    def _last_layer(self) -> Part:
        """Return the recipe's row with and without the pooled last layer, in turns."""
        recipe = self._recipe(LAST_LAYER)
        return replace(recipe, arguments=("--compare-last-layer", *recipe.arguments))

    def _seconds(self, estimate: float) -> float:
        return 1 if self.is_tiny else estimate
