"""What is written, what is refused, and that a failure leaves nothing behind."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoProcessor

from helpers.models import EOS, letter_tokenizer, tiny_bi_encoder, tiny_qwen
from helpers.tokenizers import chat_tokenizer
from quarry.data.prompts import Prompt
from quarry.data.tokenization import TextTokenizer
from quarry.errors import UserError
from quarry.models.bi_encoder import BiEncoder
from quarry.models.pooling.mean import Mean
from quarry.retrieval.encoder import Encoder
from quarry.retrieval.export.export_folder import export_sentence_transformers
from quarry.retrieval.export.loading import Export, exported_embeddings, read_export
from quarry.types import Document, Query, TokenBatch

PREFIX = Prompt(query="Q:{text}", document="P:{text}", max_query_length=9)
TAIL = Prompt(query='Q:"{text}" is', document='P:"{text}" is')
TITLED = Prompt(query="Q:{text}", document="P:{title} {text}", strip=True)


def exported(
    folder: Path,
    *,
    model: BiEncoder | None = None,
    prompt: Prompt = PREFIX,
    dtype: torch.dtype = torch.float32,
) -> Export:
    tokenizer = TextTokenizer(tokenizer=letter_tokenizer(), prompt=prompt)
    return export_sentence_transformers(
        folder, model=model or tiny_bi_encoder(), tokenizer=tokenizer, dtype=dtype
    )


def replayed(folder: Path, *, prompt: Prompt = PREFIX) -> torch.Tensor:
    return exported_embeddings(folder, TextTokenizer(tokenizer=letter_tokenizer(), prompt=prompt))


def test_nothing_but_the_folder_is_left_and_everyone_may_read_it(tmp_path: Path) -> None:
    exported(tmp_path / "runs" / "export")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["export"]
    paths = list((tmp_path / "runs" / "export").rglob("*"))
    modes = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in paths}
    assert modes == {(True, 0o755), (False, 0o644)}


def test_nothing_in_the_folder_needs_quarry(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    exported(folder, prompt=TAIL)
    for file in folder.rglob("*"):
        if file.suffix in (".json", ".py") and file.name != "quarry_export.json":
            assert "quarry" not in file.read_text().lower(), file


@pytest.mark.parametrize("prompt", [PREFIX, TAIL])
def test_the_folder_says_what_it_is(tmp_path: Path, prompt: Prompt) -> None:
    folder = tmp_path / "export"
    export = exported(folder, prompt=prompt, dtype=torch.bfloat16)
    assert read_export(folder) == export
    assert (export.dtype, export.has_code) == ("bfloat16", prompt is TAIL)
    assert 0.99 < min(export.cosines) < 1 - 1e-7  # it costs something, and not much
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"at least {min(export.cosines):.6f}" in card.replace("\n  ", " ")
    assert ("trust_remote_code=True" in card) == (prompt is TAIL)


@pytest.mark.parametrize("prompt", [PREFIX, TAIL, TITLED])
def test_the_command_of_the_card_gives_our_embeddings(
    tmp_path: Path, prompt: Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported(tmp_path / "export", prompt=prompt)
    card = (tmp_path / "export" / "README.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(card.split("```python\n")[1].split("```")[0], names)
    assert names["scores"].shape == (1, 2)
    tokenizer = TextTokenizer(tokenizer=letter_tokenizer(), prompt=prompt)
    encoder = Encoder(model=tiny_bi_encoder(), tokenizer=tokenizer, max_tokens_per_batch=500)
    documents = [
        Document(document_id="1", text="A document without a title is given as its text."),
        Document(
            document_id="2",
            title="Dense retrieval",
            text="It ranks documents by their embeddings.",
        ),
    ]
    queries = [Query(query_id="1", text="what is a dense retriever?")]
    for ours, theirs in (
        (encoder.encode(documents, "document"), names["documents"]),
        (encoder.encode(queries, "query"), names["queries"]),
    ):  # two orders of summation
        torch.testing.assert_close(ours, torch.from_numpy(theirs), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("prompt", "lines"),
    [
        (
            PREFIX,
            [
                "is a string, its text: `'P:TEXT'`",
                "is one string: title, a space, text: `'P:TITLE TEXT'`",
                "A query is a string: `'Q:TEXT'`, everything cut to 9 tokens",
            ],
        ),
        (
            TITLED,
            [
                "is a string, its text: `'P: TEXT'`, outer white space removed",
                "is a dict of title and text: `'P:TITLE TEXT'`",
            ],
        ),
    ],
)
def test_the_card_says_how_documents_are_given(
    tmp_path: Path, prompt: Prompt, lines: list[str]
) -> None:
    exported(tmp_path / "export", prompt=prompt)
    card = (tmp_path / "export" / "README.md").read_text(encoding="utf-8")
    assert all(line in card for line in lines), card


def test_weights_are_loaded_in_the_dtype_of_the_folder(tmp_path: Path) -> None:
    exported(tmp_path / "export", dtype=torch.bfloat16)
    model = SentenceTransformer(str(tmp_path / "export"), device="cpu")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_similarity_follows_normalisation(tmp_path: Path) -> None:
    model = tiny_bi_encoder()
    model.is_normalized = False
    for name, one in {"cosine": tiny_bi_encoder(), "dot": model}.items():
        exported(tmp_path / name, model=one)
        assert SentenceTransformer(str(tmp_path / name), device="cpu").similarity_fn_name == name


@pytest.mark.parametrize("is_causal", [True, False])
def test_plain_transformers_loads_backbone_and_tokenizer(tmp_path: Path, is_causal: bool) -> None:
    prompt = Prompt(query="{text}", max_query_length=4, max_document_length=4)
    tokenizer = TextTokenizer(tokenizer=letter_tokenizer(has_bos=True), prompt=prompt)
    model = tiny_bi_encoder(is_causal=is_causal)
    export_sentence_transformers(
        tmp_path / "export", model=model, tokenizer=tokenizer, dtype=torch.float32
    )
    loaded = AutoProcessor.from_pretrained(tmp_path / "export")
    assert loaded("abcdef", truncation=True)["input_ids"] == [1, 3, 4, EOS]
    backbone = AutoModel.from_pretrained(tmp_path / "export").eval()
    first = [backbone(torch.tensor([[5, 6, last]])).last_hidden_state[0, 0] for last in (7, 8)]
    assert torch.equal(*first) == is_causal  # perturbing the last token reaches the first


def test_the_tokenizer_file_holds_whatever_the_class_would_drop(tmp_path: Path) -> None:
    tokenizer = TextTokenizer(tokenizer=chat_tokenizer(), prompt=PREFIX)
    model = BiEncoder(backbone=tiny_qwen(vocab_size=448), pooling=Mean()).eval()
    export_sentence_transformers(
        tmp_path / "export", model=model, tokenizer=tokenizer, dtype=torch.float32
    )
    loaded = AutoProcessor.from_pretrained(tmp_path / "export")
    assert loaded("THE fox")["input_ids"] == loaded("the fox")["input_ids"]


class Unheard:
    """A pooling of the user's own."""

    def __call__(self, token_states: torch.Tensor, tokens: TokenBatch) -> torch.Tensor:
        return token_states[tokens.cu_seqlens[:-1].long()]


def test_a_pooling_that_cannot_be_expressed_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no pooling like Unheard.*sentence_transformers_mode"):
        exported(tmp_path / "export", model=tiny_bi_encoder(pooling=Unheard()))
    assert not list(tmp_path.iterdir())


class Mistaken(Unheard):
    sentence_transformers_mode = "lasttoken"


def test_an_export_that_gives_other_embeddings_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'question' has a cosine of .*nothing was written"):
        exported(tmp_path / "export", model=tiny_bi_encoder(pooling=Mistaken()))
    assert not list(tmp_path.iterdir())


def test_a_dtype_that_overflows_is_refused(tmp_path: Path) -> None:
    model = tiny_bi_encoder()
    model.backbone.embed_tokens.weight.data *= 1e6
    with pytest.raises(UserError, match=r"cosine of nan .*float16.*task\.dtype=bfloat16"):
        exported(tmp_path / "export", model=model, dtype=torch.float16)
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_that_cannot_pad_is_refused(tmp_path: Path) -> None:
    tokenizer = letter_tokenizer(has_eos=False)
    tokenizer.bos_token = tokenizer.unk_token = None
    text_tokenizer = TextTokenizer(
        tokenizer=tokenizer, prompt=Prompt(query="Q:{text}", document="P:{text}", end_token=None)
    )
    with pytest.raises(UserError, match="no token to pad with"):
        export_sentence_transformers(
            tmp_path / "export",
            model=tiny_bi_encoder(),
            tokenizer=text_tokenizer,
            dtype=torch.float32,
        )


def spoil_code(folder: Path) -> None:
    (folder / "framed_transformer.py").write_text("print('foreign code')\n")


def add_code(folder: Path) -> None:
    (folder / "more.py").write_text("print('foreign code')\n")


def name_other_code(folder: Path) -> None:
    file = folder / "modules.json"
    modules = json.loads(file.read_text())
    modules[1]["type"] = "os.path"
    file.write_text(json.dumps(modules))


def map_to_code(folder: Path) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"auto_map": {"AutoModel": "more.Model"}}))


@pytest.mark.parametrize("spoil", [spoil_code, add_code, name_other_code, map_to_code])
def test_foreign_code_is_not_run(
    tmp_path: Path, spoil: object, capsys: pytest.CaptureFixture[str]
) -> None:
    exported(tmp_path / "export", prompt=TAIL)
    replayed(tmp_path / "export", prompt=TAIL)
    spoil(tmp_path / "export")  # type: ignore[operator]
    with pytest.raises(UserError, match="is not run"):
        replayed(tmp_path / "export", prompt=TAIL)
    assert "foreign" not in capsys.readouterr().out


def test_a_folder_that_cannot_be_loaded_is_a_user_error(tmp_path: Path) -> None:
    exported(tmp_path / "export")
    (tmp_path / "export" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="sentence-transformers cannot load"):
        replayed(tmp_path / "export")


@pytest.mark.parametrize("content", ["", "[]", '{"dtype": "float32"}', '{"cosines": [1]}'])
def test_a_damaged_record_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "quarry_export.json").write_text(content)
    with pytest.raises(UserError, match=r"no readable quarry_export\.json"):
        read_export(tmp_path)
