"""What a stored configuration may name, and what the present call has to trust."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from quarry.config.stored_targets import (
    check_stored,
    own_name,
    packages_of,
    target_violation,
    trusted_packages,
)
from quarry.errors import UserError

SOURCE = Path("RUN/config.yaml")


def checked(content: dict[str, Any], *trusted: str) -> None:
    check_stored(OmegaConf.create(content), source=SOURCE, trusted=trusted)


def test_all_violations_are_one_message() -> None:
    content = {"loss": {"_target_": "a.b"}, "callbacks": {"x": {"_target_": "c.d"}}}
    with pytest.raises(UserError) as info:
        checked(content)
    assert "loss._target_=a.b" in str(info.value)
    assert "callbacks.x._target_=c.d" in str(info.value)
    many = {"callbacks": {f"x{i}": {"_target_": f"c{i}.d"} for i in range(300)}}
    with pytest.raises(UserError, match="and 290 more") as info:
        checked(many)
    assert len(str(info.value)) < 5000


def test_a_class_may_be_named_by_where_it_is_defined() -> None:
    own = "pytorch_lightning.callbacks.early_stopping.EarlyStopping"
    checked({"callbacks": {"stop": {"_target_": own}}})
    assert target_violation(own, "logger.stop", trusted=()) is not None


def test_a_library_that_conf_names_is_trusted_by_module() -> None:
    """Trusting all of torch would let torch.load run."""
    rms = {"optimizer": {"_target_": "torch.optim.RMSprop", "_partial_": True}}
    with pytest.raises(UserError, match=r"Fix: trusted_packages=\[torch\.optim\], only if"):
        checked(rms)
    checked(rms, "torch.optim")
    with pytest.raises(UserError, match=r"loss\._target_=torch\.load"):
        checked({"loss": {"_target_": "torch.load"}}, "torch.optim")
    with pytest.raises(UserError, match="leads to torch"):
        checked({"loss": {"_target_": "torch.optim.lr_scheduler.Tensor"}}, "torch.optim")


def test_a_trusted_name_that_is_not_there_is_told() -> None:
    with pytest.raises(UserError, match="cannot be imported"):
        checked({"loss": {"_target_": "no_such_package_of_mine.Loss"}}, "no_such_package_of_mine")


def test_interpolations_of_values_stay_what_they_are() -> None:
    checked(
        {
            "paths": {"cache_dir": '${oc.env:NO_SUCH_VARIABLE,"~/.cache"}', "run_dir": "???"},
            "data": {"path": "${data.of.${host}}", "num_workers": "${on_gpu:4,0}"},
            "prompt": {"query": "{text} ${unknown}"},
            "model": {"pooling": {}, "hub_id": "${hub_id:${model.size},${model.hub_ids}}"},
            "logger": None,
        }
    )


def test_a_circle_and_a_deep_nest_end() -> None:
    checked({"a": {"b": "${c}"}, "c": {"d": "${a}"}})
    nest: dict[str, Any] = {}
    for _ in range(40):
        nest = {"x": nest}
    with pytest.raises(UserError, match="nested"):
        checked(nest)


@pytest.mark.parametrize("names", [["a-b"], ["a b"], ["os;x"], [""], ["a..b"], ["/tmp"]])
def test_what_is_no_name_of_a_package_is_refused(names: list[str]) -> None:
    with pytest.raises(UserError, match="is no name of a package"):
        trusted_packages(OmegaConf.create({"trusted_packages": names}))


def test_a_run_tells_what_reading_it_back_needs() -> None:
    config = OmegaConf.create(
        {
            "loss": {"_target_": "my_losses.margin.Margin"},
            "optimizer": {"_target_": "torch.optim.RMSprop"},
            "model": {"_target_": "quarry.models.model_spec.model_spec", "trust_remote_code": True},
            "trusted_packages": ["mine"],
        }
    )
    assert packages_of(config) == ("mine", "my_losses", "torch.optim", "transformers_modules")
    assert packages_of(OmegaConf.create({"loss": {}})) == ()


def test_an_object_states_its_own_name() -> None:
    assert own_name(Path) == "pathlib.Path"
    assert own_name(Path.touch) == "pathlib.Path.touch"
    assert own_name(SOURCE).startswith("pathlib.")
