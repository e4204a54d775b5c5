"""What is read from source is what an import says, for everything that conf/ names."""

from __future__ import annotations

import re
import subprocess
import sys
from inspect import Signature

import pytest
from hydra.utils import get_object

from quarry.config.signature_rules import fits, imported_signature
from quarry.config.source_signatures import READ, source_signature
from quarry.runtime.shipped_files import conf_dir

NAMED = re.compile(r"^\s*_target_: *([\w.]+)", re.MULTILINE)
VALUES = (None, True, 0, 1, 1.5, "x", "auto", [1], ["a"], {"a": 1})


def targets() -> list[str]:
    texts = [path.read_text(encoding="utf-8") for path in conf_dir().rglob("*.yaml")]
    named = {target for text in texts for target in NAMED.findall(text)}
    return sorted(target for target in named if target.partition(".")[0] in READ)


def shape(signature: Signature) -> list[tuple[object, ...]]:
    return [(p.name, p.kind, p.default is p.empty) for p in signature.parameters.values()]


def test_every_class_of_the_configuration_is_read_as_it_is_imported() -> None:
    unread = []
    for target in targets():
        read = source_signature(target)
        if read is None:
            unread.append(target)
            continue
        real = imported_signature(get_object(target))
        assert shape(read) == shape(real), target
        for name, parameter in real.parameters.items():
            hints = parameter.annotation, read.parameters[name].annotation
            for value in VALUES:
                assert len({fits(value, hint) for hint in hints}) == 1, (target, name, value)
    assert unread == ["quarry.sweep.start.StudyStart"]  # of Hydra's class, and no part of a run


@pytest.mark.parametrize(
    "target", ["torch.optim.AdamW", "math.hypot", "quarry.losses.info_nce.InfoNEC", "quarry"]
)
def test_what_is_not_read_is_left_to_an_import(target: str) -> None:
    assert source_signature(target) is None


def test_nothing_slow_is_imported_for_it() -> None:
    code = (
        "import sys; from quarry.config.source_signatures import source_signature as read\n"
        "assert {'max_steps', 'max_time'} <= set(read('pytorch_lightning.Trainer').parameters)\n"
        "assert not {'pytorch_lightning', 'transformers', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
