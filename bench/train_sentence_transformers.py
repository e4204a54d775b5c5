"""Time LoRA training by sentence-transformers' own trainer, set up as its documentation advises.

    python bench/train_sentence_transformers.py --model FOLDER --texts FOLDER --work FOLDER

With --mini-batch the loss is CachedMultipleNegativesRankingLoss, their GradCache. Otherwise the
same weights, texts, adapter, temperature, batch and precision as `train_ours.py`, tokens counted by
the attention mask.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import sentence_transformers
import torch
from datasets import Dataset
from peft import LoraConfig, TaskType
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from transformers import TrainerCallback

from encode_sentence_transformers import load_model
from measuring import Clock
from quarry.data.jsonl import read_jsonl
from result_line import hand_over, num_matrix_weights

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TEMPERATURE = 0.01


class CountsTokens(torch.nn.Module):
    """Count the tokens of a loss, without padding and without synchronizing the GPU."""

    num_tokens: int | torch.Tensor = 0

    def forward(self, sentence_features: Any, *arguments: Any, **more: Any) -> torch.Tensor:
        features = list(sentence_features)
        self.num_tokens = sum(feature["attention_mask"].sum() for feature in features)
        loss: torch.Tensor = super().forward(features, *arguments, **more)
        return loss


class CountingLoss(CountsTokens, MultipleNegativesRankingLoss):
    """The in-batch loss with a token count."""


class CachedCountingLoss(CountsTokens, CachedMultipleNegativesRankingLoss):
    """The cached loss with a token count."""


class TrainerClock(TrainerCallback):
    """Stop training when all windows are measured."""

    def __init__(self, clock: Clock, loss: CountsTokens) -> None:
        self.clock = clock
        self.loss = loss

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = self.clock.tick(self.loss.num_tokens)


def read_columns(path: Path, *, query: str = "", passage: str = "") -> Dataset:
    """Return rows of a query, its positive and 15 hard negatives, as the loss expects them.

    Args:
        query, passage: prompts before the texts.
    """
    rows = []
    for _, record in read_jsonl(path):
        negatives = record["negative_passages"]
        positive = record["positive_passages"][0]["text"]
        row = {"anchor": query + record["query"], "positive": passage + positive}
        texts = {f"negative_{i}": passage + each["text"] for i, each in enumerate(negatives)}
        rows.append(row | texts)
    return Dataset.from_list(rows)


def load_with_lora(folder: Path, *, r: int, dropout: float) -> SentenceTransformer:
    model = load_model(folder)
    adapter = LoraConfig(
        task_type=TaskType.FEATURE_EXTRACTION,
        r=r,
        lora_alpha=64,
        lora_dropout=dropout,
        target_modules=PROJECTIONS,
    )
    model.add_adapter(adapter)
    return model


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--num-queries", type=int, default=8)
    parser.add_argument("--mini-batch", type=int, help="texts in one forward pass: cached loss")
    parser.add_argument("--r", type=int, default=16, help="of LoRA")
    parser.add_argument("--dropout", type=float, default=0.0, help="of LoRA")
    parser.add_argument("--query", default="", help="stands before each query")
    parser.add_argument("--passage", default="", help="stands before each passage")
    parser.add_argument("--num-workers", type=int, default=0, help="processes that tokenize")
    parser.add_argument("--without-checkpointing", action="store_true")
    parser.add_argument("--num-warm-up", type=int, default=3)
    parser.add_argument("--num-steps", type=int, default=12)
    parser.add_argument("--num-steps-per-window", type=int, default=3)
    return parser.parse_args()


def build_loss(model: SentenceTransformer, mini_batch: int | None) -> CountsTokens:
    if mini_batch is None:
        return CountingLoss(model, scale=1 / TEMPERATURE)
    return CachedCountingLoss(model, scale=1 / TEMPERATURE, mini_batch_size=mini_batch)


def main() -> None:
    arguments = parsed()
    hand_over({"sentence_transformers": sentence_transformers.__version__})
    # its workers are forked: a tokenizer with its own threads would deadlock
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    model = load_with_lora(arguments.model, r=arguments.r, dropout=arguments.dropout)
    if not arguments.without_checkpointing:
        # their trainer's own option passes arguments of transformers 5.17 that this method lacks
        model.gradient_checkpointing_enable({"use_reentrant": False})
    loss = build_loss(model, arguments.mini_batch)
    clock = Clock(
        num_warm_up=arguments.num_warm_up,
        num_steps=arguments.num_steps,
        num_steps_per_window=arguments.num_steps_per_window,
    )
    settings = SentenceTransformerTrainingArguments(
        output_dir=str(arguments.work / "sentence_transformers"),
        per_device_train_batch_size=arguments.num_queries,
        max_steps=10_000,
        learning_rate=1e-4,
        warmup_steps=100,
        bf16=torch.cuda.is_available(),
        dataloader_num_workers=arguments.num_workers,
        logging_steps=arguments.num_steps_per_window,
        save_strategy="no",
        report_to=[],
    )
    trainer = SentenceTransformerTrainer(
        model=model,
        args=settings,
        train_dataset=read_columns(
            arguments.texts / "train.jsonl", query=arguments.query, passage=arguments.passage
        ),
        loss=loss,
        callbacks=[TrainerClock(clock, loss)],
    )
    trainer.train()
    hand_over(clock.result() | {"flop_per_token": 4 * num_matrix_weights(arguments.model)})


if __name__ == "__main__":
    main()
