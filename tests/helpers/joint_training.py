"""The same small training in one process or in several, with all that can be compared."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytorch_lightning as pl
import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from helpers.losses import LOSSES, LearnedTemperature
from helpers.models import letter_tokenizer, random_projections, tiny_qwen
from helpers.training import quiet_trainer
from quarry.data.datamodule import RetrievalDataModule
from quarry.data.prompts import Prompt
from quarry.data.tokenization import TextTokenizer
from quarry.distributed import world
from quarry.distributed.data_parallel import data_parallel_strategy
from quarry.distributed.zero import ZeroStrategy
from quarry.losses.base import Loss
from quarry.losses.embedding_distillation import EmbeddingDistillation
from quarry.losses.info_nce import InfoNCE
from quarry.losses.teacher_vectors import write_teacher_vectors
from quarry.models.adapters import fast_lora
from quarry.models.adapters.fast_lora import use_fast_lora
from quarry.models.adapters.lora import LoRA
from quarry.models.adapters.lora_dropout import checkpoint_contexts
from quarry.models.bi_encoder import BiEncoder
from quarry.models.pooling.last_token import LastToken
from quarry.models.pooling.mean import Mean
from quarry.retrieval.golden_texts import golden_embeddings
from quarry.training.module import RetrievalModule
from quarry.training.optim import constant_schedule
from quarry.training.trained_state import full_state
from quarry.types import Document, Query, TrainExample

TOKENIZER = TextTokenizer(tokenizer=letter_tokenizer(), prompt=Prompt(max_document_length=64))

VECTORS = "embedding_distillation"
"""Name of the loss that needs a file."""

BATCH_SIZE = 7
"""Divides by neither 2 nor 3: no two processes have the same number of queries."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One training run; LoRA takes the fast path.

    Attributes:
        strategy: "ddp", "zero1", "zero2" or "zero3".
        num_contrastive_batches: in an update.
        budget: tokens in a chunk; None: no chunks.
        has_projections: layers after the pooling, with and without bias, and a residual.
        dropout: of LoRA; masks differ between ranks, not between strategies.
        precision: of the trainer.
        is_ragged: queries have 0 to 6 hard negatives; otherwise 1 each.
        has_parameters: the loss has parameters of its own, `LearnedTemperature`.
        has_weights: queries count 1 to 3 times.
        loss: a name of `helpers.losses.LOSSES`, with 1 to 6 hard negatives; None: InfoNCE.
    """

    strategy: str
    is_lora: bool = False
    is_double: bool = False
    budget: int | None = None
    num_contrastive_batches: int = 1
    has_masks: bool = False
    has_projections: bool = False
    clip: float | None = None
    dropout: float = 0.0
    gradient_checkpointing: bool = False
    precision: str = "32-true"
    num_steps: int = 2
    is_ragged: bool = False
    has_parameters: bool = False
    loss: str | None = None
    has_weights: bool = False

    @property
    def name(self) -> str:
        model = "lora" if self.is_lora else "full"
        parts = [self.strategy, model, "fp64" if self.is_double else "fp32"]
        parts += [f"chunks of {self.budget}"] if self.budget else []
        parts += (
            [f"{self.num_contrastive_batches} batches"] if self.num_contrastive_batches > 1 else []
        )
        parts += ["ragged"] if self.is_ragged else []
        parts += ["weights"] if self.has_weights else []
        parts += [] if self.loss is None else [self.loss]
        parts += ["parameters of the loss"] if self.has_parameters else []
        parts += ["masks"] if self.has_masks else []
        parts += ["projections"] if self.has_projections else []
        parts += [f"clip {self.clip}"] if self.clip else []
        parts += [f"dropout {self.dropout}"] if self.dropout else []
        parts += ["checkpointing"] if self.gradient_checkpointing else []
        parts += [self.precision] if self.precision != "32-true" else []
        return ", ".join(parts)


def examples(
    num_examples: int = 40,
    *,
    is_ragged: bool = False,
    fewest: int = 0,
    has_weights: bool = False,
) -> list[TrainExample]:
    """Return examples of very different lengths; some queries and passages are equal.

    Args:
        is_ragged: they have 0 to 6 hard negatives with a teacher's scores; otherwise 1 without.
        fewest: hard negatives that ragged examples have at least.
        has_weights: their queries count 1 to 3 times.
    """
    random = np.random.default_rng(0)

    def text(longest: int) -> str:
        letters = random.integers(0, 26, random.integers(1, longest))
        return "".join(chr(ord("a") + letter) for letter in letters)

    made = []
    for number in range(num_examples):
        query = "same" if number % 5 == 0 else text(8)
        positive = "shared" if number % 7 == 0 else text(40)
        num_hard = max(number % 7, fewest) if is_ragged else 1
        made.append(
            TrainExample(
                query=Query(query_id=f"q{number}", text=query),
                positives=(Document(document_id=f"p{number}", text=positive),),
                hard_negatives=tuple(
                    Document(document_id=f"n{number}-{i}", text=text(40)) for i in range(num_hard)
                ),
                weight=1.0 + number % 3 if has_weights else None,
                positive_scores=(float(number),) if is_ragged else None,
                hard_negative_scores=tuple(-number - i / 8 for i in range(num_hard))
                if is_ragged
                else None,
            )
        )
    return made


def build(*, case: Case, device: torch.device | None = None, sharding: Any = None) -> BiEncoder:
    """The tiny model of a case; the weights are the same in every process."""
    del device
    dtype = torch.float64 if case.is_double else torch.float32
    backbone = tiny_qwen(dtype=dtype)
    if case.is_double:
        use_wide_norms(backbone)
    projections = random_projections().to(dtype) if case.has_projections else None
    if not case.is_lora:
        return BiEncoder(backbone=backbone, pooling=Mean(), projections=projections)
    adapter = LoRA(
        r=4, alpha=8, dropout=case.dropout, target_modules=["q_proj", "v_proj", "up_proj"]
    )
    adapted = adapter(backbone)
    model = BiEncoder(backbone=adapted, pooling=LastToken(), projections=projections).to(dtype)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at first, and so would be the gradient of lora_A
            nn.init.normal_(parameter, std=0.1)
    assert not use_fast_lora(model.backbone, is_sharded=sharding is not None).reasons
    if case.gradient_checkpointing:
        contexts = checkpoint_contexts(model.backbone)
        model.backbone.gradient_checkpointing_enable(
            {"use_reentrant": False, "context_fn": contexts}
        )
    return model


def use_wide_norms(backbone: nn.Module) -> None:
    """Qwen2's own norms compute in fp32, whatever they are given."""
    for module in list(backbone.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Qwen2RMSNorm):
                wide = nn.RMSNorm(len(child.weight), eps=child.variance_epsilon)
                setattr(module, name, wide.to(child.weight.dtype))


def strategy_of(name: str) -> Any:
    if name == "auto":
        return "auto"
    if name == "ddp":
        return data_parallel_strategy(timeout_s=120)
    # a bucket smaller than the model, so that there are several
    return ZeroStrategy(
        stage=int(name[-1]), reduce_bucket_size=4000, allgather_bucket_size=4000,
        param_persistence_threshold=100,
    )  # fmt: skip


class Watch(pl.Callback):
    """Keeps the gradients before each update and the metrics of each contrastive batch."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, Tensor]] = []
        self.metrics: list[dict[str, float]] = []
        self.num_queries: list[int] = []

    def on_train_start(self, *_: Any) -> None:
        torch.manual_seed(world.rank())  # DeepSpeed, too, may have drawn numbers

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any
    ) -> None:
        self.gradients.append(
            {
                name: gradient_of(parameter, trainer.strategy)
                for name, parameter in pl_module.named_parameters()
                if parameter.requires_grad
            }
        )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, _: int
    ) -> None:
        self.metrics.append({k: v.item() for k, v in trainer.callback_metrics.items()})
        self.num_queries.append(batch.num_queries)


def gradient_of(parameter: nn.Parameter, strategy: Any) -> Tensor:
    if isinstance(strategy, ZeroStrategy):
        from deepspeed.utils import safe_get_full_grad

        gradient = safe_get_full_grad(parameter)
    else:
        gradient = parameter.grad
    assert gradient is not None
    return gradient.detach().clone()


def datamodule_of(case: Case) -> RetrievalDataModule:
    """The training data of a case."""
    is_ragged, fewest = case.is_ragged or case.loss is not None, int(case.loss is not None)
    return RetrievalDataModule(
        examples=examples(
            is_ragged=is_ragged, fewest=fewest, has_weights=case.has_weights
        ), tokenizer=TOKENIZER,
        num_hard_negatives=None if is_ragged else 1,
        global_batch_size=BATCH_SIZE * case.num_contrastive_batches,
        contrastive_batch_size=BATCH_SIZE, num_workers=0, seed=3,
    )  # fmt: skip


def vector_distillation() -> Loss:
    """Embedding distillation to seeded vectors of all texts of `examples`."""
    texts = [
        each.text
        for example in examples(is_ragged=True, fewest=1)
        for each in (example.query, *example.positives, *example.hard_negatives)
    ]
    vectors = np.random.default_rng(2).normal(size=(len(texts), 32)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "vectors.safetensors")
        write_teacher_vectors(path, texts=texts, vectors=vectors)
        return EmbeddingDistillation(vectors=str(path), measure="cosine")


def loss_of(case: Case) -> Loss:
    """The loss of a case."""
    if case.loss == VECTORS:
        return vector_distillation()
    if case.loss is not None:
        return LOSSES[case.loss]()
    if case.has_parameters:
        dim = 16 if case.has_projections else 32
        dtype = torch.float64 if case.is_double else torch.float32
        return LearnedTemperature(dim=dim, dtype=dtype)
    return InfoNCE(
        temperature=0.02, masks_same_passage=case.has_masks, masks_same_query=case.has_masks
    )


def train(case: Case, *, num_processes: int) -> dict[str, Any]:
    """Runs a case in this process, or as one of several, and returns what can be compared."""
    datamodule = datamodule_of(case)
    module = RetrievalModule(
        build_model=partial(build, case=case), loss=loss_of(case),
        optimizer=partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.01),
        scheduler=partial(constant_schedule, num_warmup_steps=2),
        num_training_steps=case.num_steps, grad_cache_chunk_tokens=case.budget,
    )  # fmt: skip
    watch, end = Watch(), AtEnd()
    trainer = quiet_trainer(
        watch, end, devices=num_processes, strategy=strategy_of(case.strategy),
        max_steps=case.num_steps, max_epochs=-1, gradient_clip_val=case.clip,
        accumulate_grad_batches=datamodule.num_batches_per_step, precision=case.precision,
    )  # fmt: skip
    with counted(fast_lora, "lora_product") as fast, counted(LoraLinear, "forward") as plain:
        trainer.fit(module, datamodule)
    return {
        "calls": {"fast": fast.call_count, "peft": plain.call_count},
        "gradients": watch.gradients,
        "metrics": watch.metrics,
        "num_queries": watch.num_queries,
        "weights": end.weights,
        "digest": end.digest,
    }


def counted(owner: Any, name: str) -> AbstractContextManager[mock.Mock]:
    """Count the calls of a function or method."""
    return mock.patch.object(owner, name, autospec=True, side_effect=getattr(owner, name))


class AtEnd(pl.Callback):
    """Keeps the trained weights, whole in the first process, and a digest of them in each."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: RetrievalModule) -> None:
        self.weights = full_state(pl_module, is_trained_only=True)
        self.digest = golden_embeddings(pl_module.model, TOKENIZER).double().sum().item()


def joined(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensors[name].flatten().double() for name in sorted(tensors)])


def relative_error(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Of all numbers together, in the L2 norm."""
    assert found.keys() == expected.keys()
    difference = joined(found) - joined(expected)
    return float(difference.norm() / joined(expected).norm())


def cases(names: Sequence[str]) -> list[Case]:
    """Return every kind of step under each strategy, with full weights trained and with LoRA."""
    found = []
    for strategy in names:
        for is_lora in (False, True):
            more = {"strategy": strategy, "is_lora": is_lora, "is_double": strategy == "ddp"}
            found += [
                Case(**more),
                Case(**more, budget=40, has_projections=True),
                Case(**more, num_contrastive_batches=2, clip=0.05, has_projections=is_lora),
                Case(**more, budget=40, num_contrastive_batches=2, has_masks=True, clip=0.05),
            ]
        if strategy == "zero3":
            found += [Case(strategy=strategy, is_lora=True, budget=40, gradient_checkpointing=True)]
    return found


def cases_of(num_processes: int) -> list[Case]:
    """Return the cases that so many processes train; three of them cut shares and shards anew.

    ZeRO 1 runs ZeRO 2's code but for where gradients are reduced: full weights in one pass, and
    LoRA with all there is.
    """
    everything: dict[str, Any] = {
        "budget": 40, "num_contrastive_batches": 2, "has_masks": True, "clip": 0.05
    }  # fmt: skip
    if num_processes == 2:
        return [
            *cases(["ddp", "zero2", "zero3"]),
            Case(strategy="zero1"),
            Case(strategy="zero1", num_contrastive_batches=2, clip=0.05),
            Case(strategy="zero1", is_lora=True, budget=40, has_projections=True),
            Case(strategy="zero1", is_lora=True, **everything),
            *ragged_cases(),
            *parametric_cases(),
            *loss_cases(),
        ]
    return [
        Case(strategy="ddp", is_double=True),
        Case(strategy="ddp", is_double=True, **everything),
        Case(strategy="ddp", is_double=True, is_lora=True, budget=40, has_projections=True),
        Case(strategy="zero2", num_contrastive_batches=2, clip=0.05),
        Case(strategy="zero2", is_lora=True, **everything),
        Case(strategy="zero3", **everything),
        Case(strategy="zero3", is_lora=True, budget=40, has_projections=True),
        Case(strategy="zero3", is_lora=True, budget=40, gradient_checkpointing=True),
    ]


def ragged_cases() -> list[Case]:
    """Return cases whose queries differ in hard negatives: in one pass, and in ZeRO 3's chunks."""
    more = {"has_masks": True, "is_ragged": True}
    return [
        Case(strategy="ddp", is_double=True, num_contrastive_batches=2, **more),
        Case(strategy="zero3", is_lora=True, budget=40, **more),
    ]


def parametric_cases() -> list[Case]:
    """Return cases in which the loss has parameters, in one pass and in chunks."""
    found = []
    for strategy in ("ddp", "zero1", "zero2", "zero3"):
        more = {"strategy": strategy, "is_double": strategy == "ddp", "has_parameters": True}
        found.append(Case(**more, budget=40, num_contrastive_batches=2, is_lora=True))
        if strategy in ("ddp", "zero3"):  # ZeRO 1 and 2 gather nothing for a forward pass
            found.append(Case(**more, num_contrastive_batches=2, clip=0.05))
    return found


def loss_cases() -> list[Case]:
    """Return a step of each loss with chunks, and one of most of them under ZeRO 3."""
    more: dict[str, Any] = {"budget": 40, "num_contrastive_batches": 2, "num_steps": 1}
    names = [*LOSSES, VECTORS]
    found = [Case(strategy="ddp", is_double=True, loss=name, **more) for name in names]
    weighted = {"is_double": True, "has_weights": True, **more}
    found.append(Case(strategy="ddp", loss="matryoshka of a sum", **weighted))
    more["budget"] = 200  # fewer passes, each a collective operation
    return [*found, Case(strategy="zero3", loss="matryoshka of a sum", **more)]


def dropout_cases(strategy: str) -> list[Case]:
    """LoRA with dropout: two ranks draw other masks than one.

    With GradCache one update alone: idle chunks of ZeRO 3 draw masks, too.
    """
    more = {"strategy": strategy, "is_lora": True, "dropout": 0.2}
    return [
        Case(**more),
        Case(**more, gradient_checkpointing=True, precision="bf16-mixed"),
        Case(**more, budget=40, gradient_checkpointing=True, num_steps=1),
    ]
