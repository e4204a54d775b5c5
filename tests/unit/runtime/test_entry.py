from __future__ import annotations

import os
import signal
import sys

import pytest
import torch.distributed as dist
from hydra.errors import ConfigCompositionException, InstantiationException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError

from quarry.errors import (
    ConfigurationError,
    Interrupted,
    LostRankError,
    MissingPathError,
    SharedError,
    UserError,
)
from quarry.runtime.entry import OURS, shows_user_errors


@pytest.fixture(autouse=True)
def _as_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # put back afterwards: the code under test sets it
    monkeypatch.setenv(OURS, "0")
    monkeypatch.delenv(OURS)


def _end(error: BaseException) -> int:
    """The exit code that an error ends the process with."""
    with pytest.raises(SystemExit) as caught, shows_user_errors():
        raise error
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.mark.parametrize("kind", [UserError, MissingPathError])
def test_a_users_mistake_is_its_message_and_code_2(
    capsys: pytest.CaptureFixture[str], kind: type[Exception]
) -> None:
    assert _end(kind("data.path=x: no such file.\nGive one.")) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "\nError: data.path=x: no such file.\nGive one.\n")


def test_hydra_errors_bring_what_caused_them(capsys: pytest.CaptureFixture[str]) -> None:
    error = ConfigCompositionException("In 'experiment/x': composing failed")
    error.__cause__ = ConfigAttributeError("Key 'lerning' not in 'TrainSchema'")
    assert _end(error) == 2
    assert capsys.readouterr().err == (
        "\nError: In 'experiment/x': composing failed\nKey 'lerning' not in 'TrainSchema'\n"
    )


def test_a_cause_that_is_told_already_is_not_told_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = ConfigCompositionException("composing failed: bad key")
    error.__cause__ = ConfigAttributeError("bad key")
    assert _end(error) == 2
    assert capsys.readouterr().err == "\nError: composing failed: bad key\n"


def test_an_error_without_words_shows_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert _end(ConfigCompositionException("")) == 2
    assert "ConfigCompositionException" in capsys.readouterr().err


def test_a_missing_value_is_a_users_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    config = OmegaConf.create({"seed": "???"})
    with pytest.raises(SystemExit) as caught, shows_user_errors():
        print(config.seed)
    assert caught.value.code == 2
    assert "seed" in capsys.readouterr().err


def test_a_null_group_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["train.py", "data.path=null", "loss=null", "retriever@baseline=NULL", "seed=1"]
    monkeypatch.setattr("sys.argv", arguments)
    error = ValueError("Config group override must be a string or a list. Got NoneType")
    assert _end(error) == 2
    err = capsys.readouterr().err
    assert err.startswith("\nError: loss=null, retriever@baseline=NULL: a group cannot be null")
    assert "option none" in err


def test_ctrl_c_is_130_and_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert _end(KeyboardInterrupt()) == 130
    assert capsys.readouterr() == ("", "")


def test_an_interrupted_run_is_130_and_says_where_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _end(Interrupted("after step 3, saved in DIR")) == 130
    assert capsys.readouterr().err == "\nInterrupted: after step 3, saved in DIR\n"


def test_the_signal_decides_on_the_exit_code() -> None:
    assert _end(Interrupted("after step 3", number=signal.SIGTERM)) == 143


def test_a_rank_that_a_signal_stopped_does_not_wait_for_the_others(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "_exit", sys.exit)
    monkeypatch.setattr("quarry.distributed.world.leave", lambda: pytest.fail("it would wait"))
    error = Interrupted("SIGTERM. Again.", number=signal.SIGTERM, is_shared=False)
    assert _end(error) == 143
    assert capfd.readouterr().err == "\nInterrupted: SIGTERM. Again.\n"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("shapes differ"),
        RuntimeError("ours"),
        AssertionError("ours"),
        FileNotFoundError("ours"),
        InstantiationException("a class of ours failed"),
    ],
)
def test_any_other_error_is_ours_and_keeps_its_traceback(
    capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    with pytest.raises(type(error)) as caught, shows_user_errors():
        raise error
    assert caught.value is error
    assert capsys.readouterr().err == ""


def test_full_errors_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(UserError, match="as it is"), shows_user_errors():
        raise UserError("as it is")


def test_hydra_is_told_not_to_report_by_itself() -> None:
    with shows_user_errors():
        assert os.environ["HYDRA_FULL_ERROR"] == "1"


def test_what_all_processes_raise_the_first_one_shows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "0")
    assert _end(SharedError("diverged")) == 2
    assert capsys.readouterr().err == "\nError: diverged\n"
    monkeypatch.setenv("RANK", "1")
    for error in (SharedError("diverged"), Interrupted("saved")):
        assert _end(error) == 0
    assert capsys.readouterr().err == ""
    assert _end(UserError("a line that only this process has read")) == 2
    assert "only this process" in capsys.readouterr().err


@pytest.mark.parametrize("error", [None, SharedError("diverged"), Interrupted("saved")])
def test_what_ends_in_order_leaves_the_process_group(error: BaseException | None) -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        if error is not None:
            _end(error)
        else:
            with shows_user_errors():
                pass
        assert not dist.is_initialized()
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def test_a_process_that_was_started_by_one_of_ours_shows_messages_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setenv(OURS, "1")
    assert _end(UserError("no traceback")) == 2


def test_deepspeeds_launcher_may_add_the_local_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", "--local_rank=1", "trainer.devices=2"])
    with shows_user_errors():
        import sys

        assert sys.argv == ["train.py", "trainer.devices=2"]


@pytest.mark.parametrize(
    ("environment", "code"),
    [
        ({}, 2),
        ({"RANK": "0", "LOCAL_RANK": "0"}, 2),
        ({"RANK": "1", "LOCAL_RANK": "1"}, 0),
        ({"RANK": "8", "LOCAL_RANK": "0"}, 2),  # the first one of another node
        ({"LOCAL_RANK": "1"}, 2),  # Lightning starts it when its first rank has found no mistake
    ],
)
def test_of_a_launchers_ranks_on_a_node_one_tells_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    environment: dict[str, str],
    code: int,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert _end(ConfigurationError("seed=-1: out of range")) == code
    assert capsys.readouterr().err == ("\nError: seed=-1: out of range\n" if code else "")
    assert _end(UserError("a rank of its own")) == 2


def test_a_lost_rank_is_told_by_the_first_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _end(LostRankError("Rank 1 was ended.")) == 1
    assert capsys.readouterr().err == "\nError: Rank 1 was ended.\n"
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert _end(LostRankError("Rank 1 was ended.")) == 1
    assert capsys.readouterr().err == ""
