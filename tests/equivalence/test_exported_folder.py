"""An exported folder gives in sentence-transformers what the model gives here, to 1e-5 in fp32.

Ours: packed, one pass over mixed lengths. Theirs: padded batches through another attention kernel;
two orders of summation differ by far less than 1e-5, another token by far more.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from torch.nn.functional import normalize
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.qwen2_5_vl import Qwen2_5_VLConfig, Qwen2_5_VLModel

from helpers.models import letter_tokenizer, random_projections, tiny_qwen
from helpers.saved_runs import PROMPT_NAMES, prompt_settings
from helpers.tokenizers import END, END_TURN, START_TURN, chat_tokenizer
from quarry.data.prompts import Prompt
from quarry.data.tokenization import TextTokenizer
from quarry.models.adapters.lora import LoRA
from quarry.models.bi_encoder import BiEncoder
from quarry.models.pooling.base import Pooling
from quarry.models.pooling.echo import Echo
from quarry.models.pooling.last_token import LastToken
from quarry.models.pooling.mean import Mean
from quarry.models.pooling.weighted_mean import WeightedMean
from quarry.retrieval.encoder import Encoder
from quarry.retrieval.export.export_folder import export_sentence_transformers, frame_as_data
from quarry.retrieval.export.framed_transformer import FramedTransformer
from quarry.retrieval.export.tokenizer import exported_tokenizer
from quarry.types import ROLES, Document, Query

PREFIXES = {"none", "short", "qwen3_instruct", "e5_instruct"}

TEXTS = [
    "",
    "a fox",
    "The quick brown fox.",
    '"(quoted)", and so on: ...!?"',
    " leading and trailing ",
    "def f(x):\n    return x ** 2\n",
    "the fox, which is quick, is brown: " * 9,
    "?!.,;: " * 40,
    'a sentence with "words". ' * 20,
]
TITLES = ["", "Fox", '"Title."', "\n A fox  ", " \n"]


def prompt_of(name: str, **more: Any) -> Prompt:
    """A prompt of conf/prompt, cut so short that long texts are."""
    settings = prompt_settings(name)
    del settings["_target_"]
    if settings["end_token"] not in (None, "auto"):
        settings["end_token"] = END
    lengths = {"max_query_length": 90, "max_document_length": 70}
    return Prompt(**(settings | lengths | more))


def model_of(
    backbone: PreTrainedModel | None = None, *, pooling: Pooling | None = None, **more: Any
) -> BiEncoder:
    backbone = backbone or tiny_qwen(vocab_size=448)
    return BiEncoder(backbone=backbone, pooling=pooling or LastToken(), **more).eval()


def items() -> tuple[list[Query], list[Document]]:
    queries = [Query(query_id=f"q{i}", text=text) for i, text in enumerate(TEXTS)]
    pairs = [(title, text) for text in TEXTS for title in TITLES]
    documents = [
        Document(document_id=f"d{i}", text=text, title=title)
        for i, (title, text) in enumerate(pairs)
    ]
    return queries, documents


def given(tokenizer: TextTokenizer, *, is_trusted: bool) -> list[list[Any]]:
    """What a user types: queries; documents, where there is code those with a title as dicts."""
    queries, documents = items()
    if not is_trusted:
        join = tokenizer.frames["document"].text_of
        return [[query.text for query in queries], [join(document) for document in documents]]
    return [
        [query.text for query in queries],
        [{"title": d.title, "text": d.text} if d.title else d.text for d in documents],
    ]


def ours(model: BiEncoder, tokenizer: TextTokenizer) -> list[Tensor]:
    encoder = Encoder(model=model, tokenizer=tokenizer, max_tokens_per_batch=300)
    queries, documents = items()
    return [encoder.encode(queries, "query"), encoder.encode(documents, "document")]


def theirs(folder: Path, tokenizer: TextTokenizer, *, is_trusted: bool = False) -> list[Tensor]:
    """Nothing of ours but the joining of titles and texts where there is no code."""
    model = SentenceTransformer(str(folder), device="cpu", trust_remote_code=is_trusted)
    queries, documents = given(tokenizer, is_trusted=is_trusted)
    options: dict[str, Any] = {"batch_size": 7, "convert_to_tensor": True}
    return [model.encode_query(queries, **options), model.encode_document(documents, **options)]


def assert_same_tokens(folder: Path, tokenizer: TextTokenizer, *, is_trusted: bool) -> None:
    """Compare token ids, of all texts in one batch and of each alone."""
    model = SentenceTransformer(str(folder), device="cpu", trust_remote_code=is_trusted)
    texts = given(tokenizer, is_trusted=is_trusted)
    for role, group, inputs in zip(ROLES, items(), texts, strict=True):
        expected = [row.ids.tolist() for row in tokenizer(group, role)]
        fed = [model.preprocess(inputs, prompt=model.prompts[role], task=role)]
        fed += [model.preprocess([one], prompt=model.prompts[role], task=role) for one in inputs]
        found = [
            ids[mask.bool()].tolist()
            for batch in fed
            for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
        ]
        assert found == [*expected, *expected]


def assert_same(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def assert_exports(
    folder: Path,
    *,
    model: BiEncoder | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    prompt: Prompt,
    is_trusted: bool = False,
) -> list[Tensor]:
    """Exports, and compares what the folder gives with what the model gave before."""
    model = model or model_of()
    text_tokenizer = TextTokenizer(tokenizer=tokenizer or chat_tokenizer(), prompt=prompt)
    expected = ours(model, text_tokenizer)
    export = export_sentence_transformers(
        folder, model=model, tokenizer=text_tokenizer, dtype=torch.float32
    )
    assert export.has_code == is_trusted
    assert min(export.cosines) > 1 - 1e-6
    assert_same(theirs(folder, text_tokenizer, is_trusted=is_trusted), expected)
    assert_same_tokens(folder, text_tokenizer, is_trusted=is_trusted)
    return expected


@pytest.mark.parametrize("name", PROMPT_NAMES)
def test_every_prompt(tmp_path: Path, name: str) -> None:
    pooling = Echo() if name == "echo" else LastToken()
    is_trusted = name not in PREFIXES
    assert_exports(
        tmp_path / "export",
        model=model_of(pooling=pooling),
        prompt=prompt_of(name, max_query_length=160) if name == "echo" else prompt_of(name),
        is_trusted=is_trusted,
    )


@pytest.mark.parametrize("name", sorted(PREFIXES))
def test_a_prompt_that_is_a_prefix_takes_no_code_along(tmp_path: Path, name: str) -> None:
    tokenizer = TextTokenizer(tokenizer=chat_tokenizer(), prompt=prompt_of(name))
    folder = tmp_path / "export"
    export_sentence_transformers(folder, model=model_of(), tokenizer=tokenizer, dtype=torch.float32)
    assert not list(folder.rglob("*.py"))
    assert "quarry." not in (folder / "modules.json").read_text()


@pytest.mark.parametrize("pooling", [LastToken(), Mean(), WeightedMean()])
@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("is_normalized", [True, False])
def test_every_pooling_and_direction(
    tmp_path: Path, pooling: Pooling, is_causal: bool, is_normalized: bool
) -> None:
    model = model_of(pooling=pooling, is_causal=is_causal, normalize=is_normalized)
    name = "repllama" if is_normalized else "short"
    embeddings = assert_exports(
        tmp_path / "export", model=model, prompt=prompt_of(name), is_trusted=name not in PREFIXES
    )
    norms = torch.cat(embeddings).norm(dim=-1)
    assert (norms.sub(1).abs().max() < 1e-5) == is_normalized


@pytest.mark.parametrize("has_projections", [False, True])
def test_embeddings_that_are_cut(tmp_path: Path, has_projections: bool) -> None:
    more: dict[str, Any] = {"projections": random_projections()} if has_projections else {}
    full, cut = model_of(**more), model_of(embedding_dim=8, **more)
    tokenizer = TextTokenizer(tokenizer=chat_tokenizer(), prompt=prompt_of("repllama"))
    expected = [normalize(each[:, :8], dim=1) for each in ours(full, tokenizer)]
    found = assert_exports(
        tmp_path / "export",
        model=cut,
        prompt=prompt_of("repllama"),
        is_trusted="repllama" not in PREFIXES,
    )
    assert_same(found, expected)


@pytest.mark.parametrize("name", ["echo", "prompteol"])
def test_mean_of_echo_prompts_and_of_tails(tmp_path: Path, name: str) -> None:
    model = model_of(pooling=Mean(), is_causal=False)
    prompt = prompt_of(name, max_query_length=160)
    assert_exports(tmp_path / "export", model=model, prompt=prompt, is_trusted=True)


@pytest.mark.parametrize("name", ["short", "repllama", "promptreps", "echo"])
def test_a_tokenizer_with_bos_of_its_own(tmp_path: Path, name: str) -> None:
    tokenizer = letter_tokenizer(has_bos=True)
    tokenizer.chat_template = chat_tokenizer().chat_template
    pooling = Echo() if name == "echo" else Mean()
    assert_exports(
        tmp_path / "export",
        model=model_of(pooling=pooling),
        tokenizer=tokenizer,
        prompt=prompt_of(name, max_query_length=200, max_document_length=60),
        is_trusted=name not in PREFIXES,
    )


@pytest.mark.parametrize(
    "more",
    [
        {"padding_side": "left", "truncation_side": "left"},
        {"pad_token": None},
        {"eos_token": END_TURN},
        {"add_bos_token": False, "add_eos_token": False},
        {"bos_token": START_TURN, "add_bos_token": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["short", "repllama"])
def test_tokenizer_settings_that_would_get_in_the_way(
    tmp_path: Path, more: dict[str, Any], name: str
) -> None:
    assert_exports(
        tmp_path / "export",
        tokenizer=chat_tokenizer(**more),
        prompt=prompt_of(name),
        is_trusted=name not in PREFIXES,
    )


def test_an_adapter_is_merged(tmp_path: Path) -> None:
    def adapted() -> PreTrainedModel:
        lora = LoRA(r=4, alpha=8, dropout=0.0, target_modules=["q_proj", "v_proj", "up_proj"])
        model = lora(tiny_qwen(vocab_size=448))
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.2)
        return model

    with_adapter = assert_exports(
        tmp_path / "export", model=model_of(adapted()), prompt=prompt_of("short")
    )
    without = ours(model_of(), TextTokenizer(tokenizer=chat_tokenizer(), prompt=prompt_of("short")))
    assert (with_adapter[0] - without[0]).abs().max() > 0.01
    assert not (tmp_path / "export" / "adapter_config.json").exists()


@pytest.mark.parametrize("is_causal", [True, False])
def test_of_a_vision_language_model_the_language_model(tmp_path: Path, is_causal: bool) -> None:
    text = tiny_qwen(vocab_size=448).config.to_dict()
    for key in ("model_type", "architectures", "transformers_version"):
        text.pop(key, None)
    text["rope_parameters"] = {
        "rope_type": "default",
        "rope_theta": 10_000.0,
        "mrope_section": [1, 1, 2],
    }
    vision = {
        "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2,
        "out_hidden_size": 32, "fullatt_block_indexes": [0],
    }  # fmt: skip
    torch.manual_seed(0)
    backbone = Qwen2_5_VLModel(Qwen2_5_VLConfig(text_config=text, vision_config=vision)).eval()
    folder = tmp_path / "export"
    assert_exports(
        folder,
        model=model_of(backbone, is_causal=is_causal),
        prompt=prompt_of("repllama_vl"),
        is_trusted=True,
    )
    assert '"model_type": "qwen2_5_vl_text"' in (folder / "config.json").read_text()
    loaded = SentenceTransformer(str(folder), device="cpu", trust_remote_code=True)
    assert not [name for name, _ in loaded.named_parameters() if "visual" in name]


@pytest.mark.parametrize("length_counts", ["all", "text", "turn"])
@pytest.mark.parametrize(
    ("query", "document"),
    [
        ('Query: "{text}". Use', 'Passage: "{text}"'),
        ("{text}", '{title} {text}". is'),
        ('(":{text}', "({text}){text}."),
        ('{text}."', "The {text}"),
    ],
)
def test_token_ids_of_random_texts(
    tmp_path: Path, query: str, document: str, length_counts: Any
) -> None:
    """Borders where tokens merge, at every length: the ids are the same, and so are the copies."""
    random = Random(0)
    pieces = ["the", " the", "fox", '"', ".", '".', ":", "(", ")", " ", "\n", "**", "Ü", "use", ","]
    texts = ["".join(random.choices(pieces, k=random.randrange(60))) for _ in range(60)]
    templates: Any = {"query": query, "document": document, "is_chat": length_counts == "turn"}
    templates["strip"] = length_counts == "text"
    uncut = TextTokenizer(tokenizer=chat_tokenizer(), prompt=Prompt(**templates))
    module = input_module(tmp_path, uncut)
    num_cut = 0
    for length in (18, 19, 20, 23, 27):
        prompt = Prompt(
            **templates,
            max_query_length=length,
            max_document_length=length + 4,
            length_counts=length_counts,
        )
        tokenizer = TextTokenizer(tokenizer=chat_tokenizer(), prompt=prompt)
        module.frames = {role: frame_as_data(tokenizer, role) for role in ROLES}
        groups = {
            "query": [Query(query_id=text, text=text) for text in texts],
            "document": [Document(document_id=text, text=text, title="fox") for text in texts],
        }
        for role in ROLES:
            expected = tokenizer(groups[role], role)
            inputs = texts if role == "query" else [{"title": "fox", "text": t} for t in texts]
            found = module.preprocess(inputs, task=role)
            rows = [
                (ids[mask.bool()].tolist(), int(pooled.argmax()))
                for ids, mask, pooled in zip(
                    found["input_ids"], found["attention_mask"], found["pooled"], strict=True
                )
            ]
            repeats = tokenizer.frames[role].num_copies > 1
            starts = [row.pool_start if repeats else 0 for row in expected]
            pairs = zip(expected, starts, strict=True)
            assert rows == [(row.ids.tolist(), start) for row, start in pairs]
            whole = uncut(groups[role], role)
            num_cut += sum(
                len(row) < len(all_of_it) for row, all_of_it in zip(expected, whole, strict=True)
            )
    assert num_cut > 100


def input_module(folder: Path, tokenizer: TextTokenizer) -> FramedTransformer:
    tiny_qwen(vocab_size=448).save_pretrained(folder)
    exported_tokenizer(tokenizer).save_pretrained(folder)
    return FramedTransformer(str(folder), frames={}, pools_last_copy=True)


def test_lengths_by_role_hold_with_encode_query_and_encode_document(tmp_path: Path) -> None:
    prompt = prompt_of("short", max_query_length=9, max_document_length=30)
    assert_exports(tmp_path / "export", prompt=prompt)
    model = SentenceTransformer(str(tmp_path / "export"), device="cpu")
    assert model.max_seq_length == 30
    assert model.preprocess(["fox " * 50], task="query")["input_ids"].shape == (1, 9)


def test_prompt_names_alone_choose_the_frame_where_they_can(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    tokenizer = TextTokenizer(tokenizer=chat_tokenizer(), prompt=prompt_of("promptreps"))
    export_sentence_transformers(folder, model=model_of(), tokenizer=tokenizer, dtype=torch.float32)
    model = SentenceTransformer(str(folder), device="cpu", trust_remote_code=True)
    for role in ("query", "document"):
        by_name = model.encode(["a fox"], prompt_name=role)
        by_role = getattr(model, f"encode_{role}")(["a fox"])
        assert (by_name == by_role).all()
    with pytest.raises(ValueError, match="encode_query or encode_document"):
        model.encode(["a fox"])
    with pytest.raises(ValueError, match="trust_remote_code"):
        SentenceTransformer(str(folder), device="cpu")


@pytest.fixture(scope="module")
def repllama(tmp_path_factory: pytest.TempPathFactory) -> SentenceTransformer:
    folder = tmp_path_factory.mktemp("repllama") / "export"
    tokenizer = TextTokenizer(tokenizer=chat_tokenizer(), prompt=prompt_of("repllama"))
    export_sentence_transformers(folder, model=model_of(), tokenizer=tokenizer, dtype=torch.float32)
    return SentenceTransformer(str(folder), device="cpu", trust_remote_code=True)


def test_a_string_is_a_document_without_a_title(repllama: SentenceTransformer) -> None:
    """As it was trained on: `Passage: TEXT`, the space included."""
    fed = {
        "Passage: the fox": " the fox \n",
        "Passage: the query": {"text": "the query"},
        "Passage: passage": {"title": "  ", "text": "passage"},
        "Passage:Query text": {"title": "\tQuery", "text": " text "},
        "Passage:Query ": {"title": "Query", "text": ""},
        "Passage: ": "",
    }
    end = repllama.tokenizer.eos_token_id
    features = repllama.preprocess(list(fed.values()), prompt="Passage:", task="document")
    rows = zip(features["input_ids"], features["attention_mask"], strict=True)
    expected = repllama.tokenizer(list(fed), add_special_tokens=False)["input_ids"]
    assert [ids[mask.bool()].tolist() for ids, mask in rows] == [[*ids, end] for ids in expected]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"batch_size": 2},
        {"convert_to_tensor": True},
        {"convert_to_numpy": False},
        {"precision": "int8"},
        {"output_value": "token_embeddings", "convert_to_numpy": False},
        {"normalize_embeddings": True, "truncate_dim": 16},
        {"show_progress_bar": True},
    ],
    ids=str,
)
def test_strings_and_dicts_in_one_call_come_back_in_order(
    repllama: SentenceTransformer, more: dict[str, Any]
) -> None:
    texts: list[Any] = [
        "the fox", {"title": "Fox", "text": "the quick brown fox " * 5}, {"text": "a"},
        {"title": "A long title of a short text", "text": "b"}, "https://here/the_fox.png",
    ]  # fmt: skip
    as_array = np.empty(len(texts), dtype=object)
    as_array[:] = texts
    found = repllama.encode_document(texts, **more)
    assert len(found) == len(texts)
    if more.get("precision") == "int8":
        return  # its ranges are those of the call
    again = repllama.encode_document(as_array, **more)
    alone = [repllama.encode_document(text, **more) for text in texts]
    for one, other, third in zip(found, again, alone, strict=True):
        torch.testing.assert_close(one, other)
        torch.testing.assert_close(one, third, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "wrong",
    [
        ("Fox", "the fox"), {"title": "Fox"}, {"title": None, "text": "the fox"}, {}, 7, None,
        {"title": "Fox", "text": ["the fox"]}, {"titel": "Fox", "text": "the fox"},
        {"text": "the fox", "image": "fox.png"}, {"role": "user", "content": "the fox"},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_text_is_refused(repllama: SentenceTransformer, wrong: Any) -> None:
    """sentence-transformers would call again after a TypeError, with the prompt in front."""
    with pytest.raises(ValueError, match=r"no text \(a string, or a dict|does not support"):
        repllama.encode_document(["the fox", wrong])
