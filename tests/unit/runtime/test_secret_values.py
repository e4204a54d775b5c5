"""What is secret is known by its key, its place in a URL, or the variable that it came from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from quarry.runtime import secret_values
from quarry.runtime.secret_values import (
    as_shell_variables,
    is_secret,
    remember,
    remember_arguments,
    remember_environment,
    remember_secrets,
    remember_variable,
    scrub,
    scrub_argument,
    without_secrets,
)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The secrets of this test alone."""
    monkeypatch.setattr(secret_values, "_known", {})
    return secret_values._known


SECRETS = [
    "api_key",
    "apikey",
    "hf_token",
    "wandb.api_key",
    "WANDB_API_KEY",
    "x-api-key",
    "token",
    "access_token",
    "github_token",
    "hub-token",
    "secret",
    "client_secret",
    "secret_key",
    "aws_secret_access_key",
    "private_key",
    "db.password",
    "passwd",
    "credentials",
    "passphrase",
    "Authorization",
    "pwd",
    "db.pwd",
    "MYSQL_PWD",
    "AWSAccessKeyId",
    "aws_access_key_id",
]
HARMLESS = [
    "end_token",
    "prompt.end_token",
    "max_tokens_per_batch",
    "tokens",
    "num_tokens",
    "tokenizer",
    "tokenizers",
    "last_token_pooling",
    "key",
    "keyboard",
    "monkey",
    "query",
    "secretary",
    "password_length",
    "eos_token_id",
    "prompt.end_token",
    "begin_token",
    "PWD",
    "OLDPWD",
]


@pytest.mark.parametrize("key", SECRETS)
def test_secrets_are_known_by_their_key(key: str) -> None:
    assert is_secret(key)
    assert scrub_argument(f"{key}=hunter2") == f"{key}=***"
    assert scrub({"a": [{key: "hunter2"}]}) == {"a": [{key: "***"}]}


@pytest.mark.parametrize("key", HARMLESS)
def test_what_only_sounds_like_a_secret_is_kept(key: str) -> None:
    assert not is_secret(key)
    assert scrub_argument(f"{key}=16384") == f"{key}=16384"
    assert scrub({key: 16384}) == {key: 16384}


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("+logger.wandb.api_key=abc=def", "+logger.wandb.api_key=***"),
        ("settings={api_key:abc}", "settings={api_key:***}"),
        ("settings={a:1, hf_token: abc, b:[2]}", "settings={a:1, hf_token: ***, b:[2]}"),
        ("+h={password:'p w d',a:1}", "+h={password:***,a:1}"),
        ("+h={authorization: Bearer abc , a:1}", "+h={authorization: *** , a:1}"),
        ("+h={api_key:'a,b}',token:\"c d\"}", "+h={api_key:***,token:***}"),
        ("+h={a:{token:[x1,y2]},b:2}", "+h={a:{token:***},b:2}"),
        ("+h={token:${oc.env:KEY},b:2}", "+h={token:${oc.env:KEY},b:2}"),
        ('+h=\'{"api_key": "abc"}\'', "+h='{\"api_key\": ***}'"),
        ("data.path=/data/token=1/x", "data.path=/data/token=1/x"),
        ("model/pooling=last_token", "model/pooling=last_token"),
        ("--multirun", "--multirun"),
        ("token", "token"),
    ],
)
def test_arguments_keep_their_form(argument: str, expected: str) -> None:
    assert scrub_argument(argument) == expected


def test_scrub_copies_and_keeps_what_is_empty() -> None:
    config = {"wandb": {"api_key": "abc", "password": None, "token": ""}, "list": [1, ["a"]]}
    scrubbed = scrub(config)
    assert scrubbed == {
        "wandb": {"api_key": "***", "password": None, "token": ""},
        "list": [1, ["a"]],
    }
    assert config["wandb"] == {"api_key": "abc", "password": None, "token": ""}


def test_secret_groups_are_hidden_whole() -> None:
    assert scrub({"credentials": {"user": "me", "word": "x"}}) == {"credentials": "***"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://me:hunter2@host/x: no such", "https://me:***@host/x: no such"),
        ("https:/me:hunter2@host/x", "https:/me:***@host/x"),
        ("s3://me:a:b@c@host", "s3://me:***@host"),
        ("https://ghp_abc@github.com/x", "https://***@github.com/x"),
        ("ssh://git@github.com/x", "ssh://git@github.com/x"),
        ("https://host:8080/a@b", "https://host:8080/a@b"),
        ("'https://me:pa/ssW0rd@host/x' y@z", "'https://me:***@host/x' y@z"),
        ("https://me:p@a/ss@host/x", "https://me:***@host/x"),
        ("a=https://me:p/w@h/x,https://v:q@h/y", "a=https://me:***@h/x,https://v:***@h/y"),
        ("https://me:pw@host/${x}@y", "https://me:***@host/${x}@y"),
        ("http://u:p@a/ http://v:q@b/", "http://u:***@a/ http://v:***@b/"),
        ("https://me:${oc.env:PW}@host", "https://me:${oc.env:PW}@host"),
        ("https://h/x?token=abc&n=1", "https://h/x?token=***&n=1"),
        ("https://h/x?X-Amz-Signature=abc", "https://h/x?X-Amz-Signature=***"),
        ("end token: </s>", "end token: </s>"),
    ],
)
def test_urls_show_no_password(text: str, expected: str) -> None:
    assert without_secrets(text) == expected
    assert scrub({"a": [text]}) == {"a": [expected]}


def test_the_password_of_an_argument_is_hidden_wherever_it_stands() -> None:
    remember_arguments(["data.path=https://me:hunter2@host/x", "+w.settings={api_key:abcd}"])
    assert (
        without_secrets("login as me with hunter2 failed, abcd")
        == "login as me with *** failed, ***"
    )


def test_secrets_inside_braces_are_hidden_wherever_they_stand() -> None:
    remember_arguments(
        [
            "+h={password:'p w d1',authorization: Bearer abcd1}",
            "+a.token=[one1,two2]",
            "x=https://me:pa/ss@h",
            "+a.use_auth_token=true",
        ]
    )
    remember_secrets({"tokens": "kept", "token": ["three3"]})
    for secret in ("p w d1", "abcd1", "one1", "two2", "pa/ss", "three3"):
        assert without_secrets(f"<{secret}>") == "<***>"
    assert without_secrets("bf16-true kept") == "bf16-true kept"


def test_the_value_of_a_secret_key_is_hidden_wherever_it_stands_in_any_spelling() -> None:
    remember_arguments(["hf_token='it\"s me'", "a.password=x,12345"])
    remember_secrets({"deep": [{"client_secret": "from yaml"}], "api_key": "${oc.env:KEY}"})
    for spelled in ('it"s me', 'it\\"s me', "it%22s%20me", "it%22s+me", "12345", "from yaml"):
        assert without_secrets(f"<{spelled}>") == "<***>"
    assert without_secrets("x is too short") == "x is too short"


def test_the_longer_secret_is_hidden_first() -> None:
    remember("hunter")
    remember("hunter2000")
    assert without_secrets("hunter2000 hunter") == "*** ***"


def test_a_variable_shows_as_its_interpolation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYPW", "hunter2")
    remember_secrets({"a": "x ${oc.env:MYPW,default}"})
    assert without_secrets("by hunter2!") == "by ${oc.env:MYPW}!"
    assert scrub({"a": "hunter2", "b": ("hunter2",)}) == {
        "a": "${oc.env:MYPW}",
        "b": ("${oc.env:MYPW}",),
    }
    assert as_shell_variables("by ${oc.env:MYPW}!") == "by $MYPW!"


@pytest.mark.parametrize("value", ["3", "1e-5", "true", "", "."])
def test_numbers_switches_and_folders_are_no_secrets(
    monkeypatch: pytest.MonkeyPatch, known: dict[str, Any], tmp_path: Path, value: str
) -> None:
    monkeypatch.setenv("MINE", value)
    monkeypatch.setenv("FOLDER", str(tmp_path))
    monkeypatch.setenv("QUARRY_CACHE", "/no/such/folder/yet")
    for name in ("MINE", "FOLDER", "QUARRY_CACHE", "NO_SUCH_VARIABLE"):
        remember_variable(name)
    assert known == {}


def test_a_short_value_of_a_variable_is_hidden_where_it_stands_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_SPLIT", "test")
    remember_variable("MY_SPLIT")
    assert scrub({"split": "test"}) == {"split": "${oc.env:MY_SPLIT}"}
    assert without_secrets("100 queries of test") == "100 queries of test"


def test_a_secret_that_is_a_variable_keeps_its_interpolation() -> None:
    assert scrub({"api_key": "${oc.env:KEY}"}) == {"api_key": "${oc.env:KEY}"}
    assert scrub({"api_key": "${oc.env:KEY,hunter2}"}) == {"api_key": "${oc.env:KEY}"}
    assert scrub_argument("a.api_key='${oc.env:KEY}'") == "a.api_key=${oc.env:KEY}"
    assert scrub({"api_key": "a${oc.env:KEY}"}) == {"api_key": "***"}


def test_variables_with_names_of_secrets_are_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_hunter2")
    remember_environment()
    assert without_secrets("401 for hf_hunter2") == "401 for ***"
    for spelled in ("\\nhf_hunter2", "%20hf_hunter2", "x_hf_hunter2."):
        assert "hunter2" not in without_secrets(spelled)


def test_harmless_variables_with_names_of_secrets_change_nothing(
    monkeypatch: pytest.MonkeyPatch, known: dict[str, Any]
) -> None:
    harmless = {
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "true",
        "DISABLE_API_KEY": "everywhere",
        "DB_PASSWORD": "test",
        "MAX_TOKEN": "12345678",
        "QUARRY_TOKEN": "something",
    }
    monkeypatch.setattr(os, "environ", harmless)
    remember_environment()
    assert known == {}


def test_in_configurations_a_secret_of_the_environment_is_a_complete_value_or_in_a_url(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DB_PASSWORD", "training")
    remember_environment()
    config = {"a": "training", "b": "data/training", "c": "https://h/training/x"}
    assert scrub(config) == {"a": "***", "b": "data/training", "c": "https://h/***/x"}
    assert without_secrets("a training of trainings") == "a *** of trainings"
    remember_arguments(["+db.password=training"])
    assert scrub(config)["b"] == "data/***"
