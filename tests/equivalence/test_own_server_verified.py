"""task=verify of our own server: it keeps the contract of a model with prompts and an adapter."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from helpers.models import tiny_qwen
from helpers.saved_runs import LORA, saved_run
from helpers.tokenizers import chat_tokenizer
from quarry.assembly.stored_model import open_stored_model
from quarry.errors import UserError
from quarry.models.building import build_bi_encoder
from quarry.retrieval.encoder import Encoder
from quarry.tasks.verify import verify

PROMPT = {
    "query": "Query: {text}", "document": "Passage: {text}", "max_query_length": 150,
    "max_document_length": 150,
}  # fmt: skip
TOKEN = "a-token-of-our-own-server"


def test_our_server_gives_our_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("quarry.serving.assembled_server", reason="there is no task=serve")
    from helpers.served import served

    tiny_qwen(vocab_size=448).save_pretrained(tmp_path / "base")
    chat_tokenizer().save_pretrained(tmp_path / "base")
    run = saved_run(tmp_path / "run", base=tmp_path / "base", prompt=PROMPT, adapter=LORA)
    parts = open_stored_model(str(run), base_path=None).parts
    model = build_bi_encoder(parts.spec, is_trained=False).eval()
    encoder = Encoder(model=model, tokenizer=parts.tokenizer, max_tokens_per_batch=500)
    config = OmegaConf.create({"run": str(run)})
    monkeypatch.setenv("OUR_TOKEN", TOKEN)
    with served(encoder=encoder, token=TOKEN, max_characters_per_text=50_000) as server:
        url = f"{server.url}/v1"
        result = verify(config, export=None, endpoint=url, token_env="OUR_TOKEN", sends="text")
        assert result["verify/endpoint"] > 1 - 1e-6
        with pytest.raises(UserError, match="asks for a token"):
            verify(config, export=None, endpoint=url, sends="text")
        with pytest.raises(UserError, match="documents: the prompt is applied twice"):
            verify(config, export=None, endpoint=url, token_env="OUR_TOKEN", sends="rendered")
