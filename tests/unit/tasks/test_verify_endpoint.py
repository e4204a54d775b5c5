"""task=verify of a server: one that keeps the contract passes, others fail with the finding."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from helpers.models import tiny_qwen
from helpers.saved_runs import LORA, saved_run
from helpers.stub_endpoint import Server, Stub, served
from helpers.tokenizers import chat_tokenizer
from quarry.assembly.stored_model import open_stored_model
from quarry.errors import UserError
from quarry.models.building import build_bi_encoder
from quarry.tasks.verify import verify
from quarry.types import Role

PROMPT = {
    "query": "Query: {text}", "document": "Passage: {text}", "max_query_length": 150,
    "max_document_length": 150,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _few_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quarry.retrieval.endpoint.diagnosis.LENGTHS", (64, 256))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("endpoint")
    tiny_qwen(vocab_size=448).save_pretrained(folder / "base")
    chat_tokenizer().save_pretrained(folder / "base")
    return saved_run(folder / "run", base=folder / "base", prompt=PROMPT, adapter=LORA)


@pytest.fixture(scope="module")
def parts(run: Path) -> tuple[Any, Any]:
    stored = open_stored_model(str(run), base_path=None)
    model = build_bi_encoder(stored.parts.spec, is_trained=False).eval()
    return model, stored.parts.tokenizer


@pytest.fixture
def stub() -> Iterator[Stub]:
    with served(Stub()) as stub:
        yield stub


def of(run: Path) -> DictConfig:
    return OmegaConf.create({"run": str(run)})


def behaves(stub: Stub, parts: tuple[Any, Any], server: Server, *, without_adapter: bool = False):
    model, tokenizer = parts

    def embed(text: str, role: Role) -> Any:
        if without_adapter:
            with model.backbone.disable_adapter():
                return server.embed(text, role, model=model, tokenizer=tokenizer)
        return server.embed(text, role, model=model, tokenizer=tokenizer)

    stub.embed = embed


def test_a_server_that_applies_the_prompt(
    run: Path, parts: tuple[Any, Any], stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    behaves(stub, parts, Server())
    result = verify(of(run), export=None, endpoint=stub.url, sends="text")
    assert result == {"verify/endpoint": pytest.approx(1, abs=1e-6)}
    assert [body["input_type"] for body in stub.asked] == ["query", "document"]
    assert {body["model"] for body in stub.asked} == {"mine"}
    assert "gives the model's embeddings" in capsys.readouterr().out
    with pytest.raises(
        UserError, match=r"documents: the prompt is applied twice.*Fix: .*task\.sends=text"
    ):
        verify(of(run), export=None, endpoint=stub.url, sends="rendered")


def test_a_server_that_takes_strings_as_they_are(
    run: Path, parts: tuple[Any, Any], stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    behaves(stub, parts, Server(prompt=lambda role, text: text))
    stub.is_base64 = True
    result = verify(
        of(run), export=None, endpoint=stub.url, endpoint_model="named", sends="rendered"
    )
    assert result == {"verify/endpoint": pytest.approx(1, abs=1e-6)}
    assert {body["model"] for body in stub.asked} == {"named"}
    assert not any("input_type" in body for body in stub.asked)
    with pytest.raises(
        UserError,
        match=r"queries and documents: no prompt is applied\. Fix: .*task\.sends=rendered",
    ):
        verify(of(run), export=None, endpoint=stub.url, sends="text")
    out = capsys.readouterr().out
    assert "differs from the contract:\nQueries and documents: no prompt is applied." in out


def test_a_server_without_the_adapter(run: Path, parts: tuple[Any, Any], stub: Stub) -> None:
    behaves(stub, parts, Server(), without_adapter=True)
    with pytest.raises(UserError, match="the base model answers, without the adapter"):
        verify(of(run), export=None, endpoint=stub.url, sends="text")


def test_a_server_that_refuses_long_texts(run: Path, parts: tuple[Any, Any], stub: Stub) -> None:
    behaves(stub, parts, Server())
    stub.refuses = 2000
    with pytest.raises(UserError, match=r"long texts: the server refuses 'long'"):
        verify(of(run), export=None, endpoint=stub.url, sends="text")
    assert len(stub.asked) == 2 + 5
    stub.refuses = 0
    with pytest.raises(UserError, match="refuses the request .*too long"):
        verify(of(run), export=None, endpoint=stub.url, sends="text")


def test_options_are_checked_before_anything_is_read(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = Path("/nowhere")
    with pytest.raises(UserError, match=r"task\.sends=tokens: not one of rendered, text"):
        verify(of(nowhere), export=None, endpoint=stub.url, sends="tokens")  # type: ignore[arg-type]
    monkeypatch.delenv("MY_TOKEN", raising=False)
    with pytest.raises(UserError, match=r"task\.token_env=MY_TOKEN: no environment variable"):
        verify(of(nowhere), export=None, endpoint=stub.url, token_env="MY_TOKEN")


def test_a_token_of_the_environment_is_sent(
    run: Path, parts: tuple[Any, Any], stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    behaves(stub, parts, Server())
    stub.token = "planted-token-of-a-server"
    monkeypatch.setenv("MY_TOKEN", stub.token)
    verify(of(run), export=None, endpoint=stub.url, sends="text", token_env="MY_TOKEN")


def test_keys_of_a_server_without_one_are_warned_about(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keys = ["task", "run", "task.sends"]
    monkeypatch.setattr("quarry.config.overrides.explicit_keys", lambda: keys)
    verify(of(run), export=None, sends="text")
    assert "task.sends: no effect with task.endpoint=null" in caplog.text


@pytest.mark.parametrize(
    "wrong", ["min_cosine=2", "timeout_s=-1", "timeout_s=soon", "endpoint=[a,b]", "nonsense=1"]
)
def test_values_of_the_command_line_are_checked(wrong: str) -> None:
    from hydra import compose, initialize_config_dir

    from helpers.commands import ROOT
    from quarry.config.schema import register_schemas

    register_schemas()
    with initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):
        plus = "+" if wrong.startswith("nonsense") else ""
        config = compose("eval", overrides=["task=verify", f"{plus}task.{wrong}"])
    with pytest.raises(UserError, match=rf"task(\.|:.*){wrong.partition('=')[0]}"):
        verify(config, export=None)
