"""What a loss needs and data or model lack is said before training, with line or key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from helpers.models import letter_tokenizer
from quarry.assembly.training_loss import build_loss, check_loss
from quarry.data.prompts import Prompt
from quarry.data.tokenization import TextTokenizer
from quarry.data.train_dataset import TrainDataset
from quarry.data.train_files import read_train_files
from quarry.data.train_forms import TrainColumns
from quarry.errors import UserError
from quarry.losses.base import Loss
from quarry.losses.cosent import CoSENT
from quarry.losses.embedding_distillation import EmbeddingDistillation
from quarry.losses.info_nce import InfoNCE
from quarry.losses.kl_distillation import KLDistillation
from quarry.losses.margin_mse import MarginMSE
from quarry.losses.matryoshka import Matryoshka
from quarry.losses.teacher_vectors import write_teacher_vectors
from quarry.losses.weighted_sum import WeightedSum

KL = KLDistillation(temperature=1.0)
INFO_NCE = "quarry.losses.info_nce.InfoNCE"


def line(number: int, **more: Any) -> dict[str, Any]:
    return {
        "query": f"q{number}",
        "positive": f"p{number}",
        "negatives": [f"n{number}", f"m{number}"],
        "positive_scores": [2.0],
        "negative_scores": [1.0, 0.5],
    } | more


def dataset(
    folder: Path, lines: list[dict[str, Any]], *, in_memory: bool, num_hard: int | None = None
) -> TrainDataset:
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")
    examples: Any = read_train_files(path=path, cache_dir=folder / "cache")
    examples = list(examples) if in_memory else examples
    return TrainDataset(examples, num_hard_negatives=num_hard, seed=0)


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize(
    ("loss", "broken", "fact"),
    [
        (KL, {"negative_scores": None}, "passages without a teacher's score"),
        (KL, {"negative_scores": [1.0, None]}, "passages without a teacher's score"),
        (KL, {"positive_scores": None}, "passages without a teacher's score"),
        (MarginMSE(temperature=1.0), {"negative_scores": None}, "MarginMSE needs a score"),
        (CoSENT(temperature=1.0), {"positive_scores": None}, "CoSENT needs a score"),
        (KL, {"negatives": [], "negative_scores": []}, "no hard negative"),
    ],
)
def test_a_line_without_what_is_needed_is_refused(
    loss: Loss, broken: dict[str, Any], fact: str, in_memory: bool, tmp_path: Path
) -> None:
    lines = [line(0), line(1), line(2, **broken), line(3)]
    data = dataset(tmp_path, lines, in_memory=in_memory)
    where = "example 2" if in_memory else r"train\.jsonl:3"
    with pytest.raises(UserError, match=rf"{where}: query '.*' has .*\(1 of 4 examples") as error:
        check_loss(loss, dataset=data, embedding_dim=32)
    assert fact in str(error.value)
    check_loss(InfoNCE(temperature=1.0), dataset=data, embedding_dim=32)


@pytest.mark.parametrize("in_memory", [False, True])
def test_complete_data_pass_and_unused_negatives_need_no_scores(
    in_memory: bool, tmp_path: Path
) -> None:
    data = dataset(tmp_path, [line(0), line(1)], in_memory=in_memory)
    check_loss(KL, dataset=data, embedding_dim=32)
    lines = [line(0, negative_scores=None), line(1, positive_scores=[3.0], negatives=[])]
    lines[1]["negative_scores"] = None
    data = dataset(tmp_path, lines, in_memory=in_memory, num_hard=0)
    check_loss(CoSENT(temperature=1.0), dataset=data, embedding_dim=32)
    with pytest.raises(UserError, match=r"data\.num_hard_negatives=0: .*KLDistillation"):
        check_loss(KL, dataset=data, embedding_dim=32)


def test_weights_of_lines_reach_the_example_and_cosent_refuses_them(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    lines = [line(0, w=0.5), line(1, w=2)]
    path.write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")
    columns = TrainColumns(weight="w")
    examples = read_train_files(path=path, columns=columns, cache_dir=tmp_path / "cache")
    data = TrainDataset(examples, num_hard_negatives=None, seed=0)
    assert [data[0, index].weight for index in range(2)] == [0.5, 2.0]
    check_loss(KL, dataset=data, embedding_dim=32)
    with pytest.raises(UserError, match=r"data\.columns\.weight: .*CoSENT"):
        check_loss(CoSENT(temperature=1.0), dataset=data, embedding_dim=32)
    for bad in (0, -1, None, "x"):
        path.write_text(json.dumps(line(0, w=bad)) + "\n", encoding="utf-8")
        with pytest.raises(UserError, match=r"train\.jsonl:1"):
            read_train_files(path=path, columns=columns, cache_dir=tmp_path / "cache")


def test_a_text_without_a_teachers_vector_is_refused(tmp_path: Path) -> None:
    data = dataset(tmp_path, [line(0), line(1)], in_memory=False)
    texts = [f"{kind}{number}" for kind in "qpnm" for number in range(2)]
    frames = TextTokenizer(tokenizer=letter_tokenizer(), prompt=Prompt()).frames

    def check(texts: list[str], dim: int = 8) -> None:
        path = tmp_path / "v.safetensors"
        vectors = np.ones((len(texts), 8), dtype=np.float32)
        write_teacher_vectors(path, texts=texts, vectors=vectors)
        loss = EmbeddingDistillation(vectors=str(path))
        check_loss(loss, dataset=data, embedding_dim=dim, frames=frames)

    check(texts)
    with pytest.raises(UserError, match=r"train\.jsonl:2: loss\.vectors .*'m1'"):
        check(texts[:-1])
    with pytest.raises(UserError, match=r"loss\.vectors: they are 8 wide.*32"):
        check(texts, dim=32)


def test_equal_grades_are_refused(tmp_path: Path) -> None:
    equal = {"positive_scores": [1.0], "negative_scores": [1.0, 1.0]}
    data = dataset(tmp_path, [line(0, **equal), line(1, **equal)], in_memory=False)
    with pytest.raises(UserError, match="all scores are 1, and .*CoSENT"):
        check_loss(CoSENT(temperature=1.0), dataset=data, embedding_dim=32)


def test_a_width_above_the_models_is_refused(tmp_path: Path) -> None:
    data = dataset(tmp_path, [line(0)], in_memory=False)
    loss = Matryoshka(loss=InfoNCE(temperature=1.0), dims=[64, 16])
    with pytest.raises(UserError, match=r"loss\.dims: 64 .*32"):
        check_loss(loss, dataset=data, embedding_dim=32)
    check_loss(loss, dataset=data, embedding_dim=64)


def test_needs_of_a_loss_inside_count(tmp_path: Path) -> None:
    data = dataset(tmp_path, [line(0, positive_scores=None)], in_memory=False)
    with pytest.raises(UserError, match=r"train\.jsonl:1: .*KLDistillation"):
        check_loss(Matryoshka(loss=KL, dims=[2]), dataset=data, embedding_dim=32)


def test_a_message_of_a_loss_inside_names_its_key() -> None:
    inner = {"_target_": INFO_NCE, "temperature": -1.0}
    summed = {
        "_target_": "quarry.losses.weighted_sum.WeightedSum",
        "losses": {"first": inner},
        "weights": {"first": 1.0},
    }
    config = OmegaConf.create({"loss": summed})
    with pytest.raises(UserError, match=r"^loss\.losses\.first\.temperature=-1\.0: .*Fix: loss\.l"):
        build_loss(config)
    inner["temperature"] = 0.5
    before = torch.get_rng_state()
    loss = build_loss(OmegaConf.create({"loss": summed}))
    assert torch.equal(before, torch.get_rng_state())
    assert [type(each).__name__ for each in loss.inner_losses()] == ["WeightedSum", "InfoNCE"]


def test_a_loss_with_a_weight_of_0_is_not_built() -> None:
    missing = {
        "_target_": "quarry.losses.embedding_distillation.EmbeddingDistillation",
        "vectors": "/nowhere.safetensors",
    }
    summed = {
        "_target_": "quarry.losses.weighted_sum.WeightedSum",
        "losses": {"first": {"_target_": INFO_NCE, "temperature": 0.5}, "second": missing},
        "weights": {"first": 1.0, "second": 0.0},
    }
    outer = {"_target_": "quarry.losses.matryoshka.Matryoshka", "loss": summed, "dims": [8]}
    config = OmegaConf.create({"loss": outer})
    OmegaConf.set_struct(config, True)  # as Hydra composes it
    names = [type(each).__name__ for each in build_loss(config).inner_losses()]
    assert names == ["Matryoshka", "WeightedSum", "InfoNCE"]
    assert "second" in config.loss.loss.losses  # the configuration stays as it is
    config.loss.loss.weights.second = 1.0
    with pytest.raises(UserError, match=r"^loss\.loss\.losses\.second\.vectors="):
        build_loss(config)


def test_a_width_of_a_loss_inside_is_refused_by_its_key(tmp_path: Path) -> None:
    inner = Matryoshka(loss=InfoNCE(temperature=1.0), dims=[64, 16])
    loss = WeightedSum(losses={"cut": inner}, weights={"cut": 1.0})
    data = dataset(tmp_path, [line(0)], in_memory=True)
    with pytest.raises(UserError, match=r"^loss\.losses\.cut\.dims: 64 .*32"):
        check_loss(loss, dataset=data, embedding_dim=32)


def test_the_batch_size_of_a_loss_inside_is_refused() -> None:
    inner = {"_target_": INFO_NCE, "temperature": 1.0, "contrastive_batch_size": 8}
    outer = {"_target_": "quarry.losses.matryoshka.Matryoshka", "loss": inner, "dims": [8]}
    with pytest.raises(UserError, match=r"^loss\.loss\.contrastive_batch_size=8: has no effect"):
        build_loss(OmegaConf.create({"loss": outer}))


def test_what_is_no_loss_is_refused() -> None:
    config = OmegaConf.create({"loss": {"_target_": "torch.nn.Identity"}})
    with pytest.raises(UserError, match="loss=Identity: is no loss"):
        build_loss(config)
