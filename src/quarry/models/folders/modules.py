"""Read modules.json of sentence-transformers (2.x to 6.x), and the modules that it lists."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from quarry.errors import UserError
from quarry.models.backbones.model_files import model_file, read_json
from quarry.models.folders.pooling_modes import BY_MODE, pooling_node
from quarry.models.projections import ACTIVATIONS, Dense

MODULES_FILE = "modules.json"
KINDS = ("Transformer", "Pooling", "Dense", "Normalize")

MODE_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Key in versions before 6 -> name of the pooling mode."""

POOLING_KEYS = {
    "word_embedding_dimension", "embedding_dimension", "pooling_mode", "include_prompt",
    *MODE_FLAGS,
}  # fmt: skip
DENSE_KEYS = {
    "in_features", "out_features", "bias", "activation_function", "module_input_name",
    "module_output_name", "use_residual",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Module:
    """An entry of modules.json.

    Attributes:
        kind: name of its class.
        path: its subfolder; "" is the model's folder.
    """

    kind: str
    path: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFolder:
    """A model folder or hub repository that finds and reads its files by name."""

    source: str
    revision: str | None = None

    def find(self, path: str, name: str) -> Path | None:
        """Return the file of that name in a subfolder; None if there is none."""
        return model_file(self.source, str(PurePosixPath(path) / name), revision=self.revision)

    def config_of(self, module: Module) -> tuple[dict[str, Any], str]:
        """Return the content of a module's config.json, and the file's name for messages.

        Raises:
            UserError: there is no such file.
        """
        name = f"{module.path}/config.json"
        file = self.find(module.path, "config.json")
        if file is None:
            raise UserError(
                f"{self.source}: {MODULES_FILE} names a {module.kind} in {module.path!r}, and "
                f"there is no {name}. Restore the file."
            )
        return read_json(file), name


def read_modules(folder: ModelFolder) -> list[Module] | None:
    """Return the modules of modules.json, in order; None if there is no such file.

    The supported order is Transformer, Pooling, any number of Dense, and at most one Normalize.

    Raises:
        UserError: a module or an order is not supported, or the file is malformed.
    """
    file = folder.find("", MODULES_FILE)
    if file is None:
        return None
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        modules = [Module(kind=_kind(str(e["type"])), path=str(e["path"])) for e in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file}: must be a list of modules with type and path ({type(error).__name__}: "
            f"{error}). Restore the file."
        ) from error
    extra = sorted({key for e in entries for key in e if e[key]} - {"idx", "name", "path", "type"})
    if extra:
        raise UserError(f"{file}: {', '.join(extra)} of a module is not supported.")
    unknown = [module.kind for module in modules if module.kind not in KINDS]
    if unknown:
        raise UserError(
            f"{file}: the model has a module {unknown[0]}, which is not supported (allowed: "
            f"{', '.join(KINDS)})."
        )
    kinds = [module.kind for module in modules]
    expected = ["Transformer", "Pooling", *["Dense"] * kinds.count("Dense")]
    if kinds not in (expected, [*expected, "Normalize"]):
        raise UserError(
            f"{file}: the modules are {', '.join(kinds) or 'none'}; what is supported is "
            "Transformer, Pooling, then any number of Dense, then at most one Normalize."
        )
    return modules


def _kind(type_: str) -> str:
    """Return the class name of a sentence-transformers module; of another one the full name."""
    package, _, name = type_.rpartition(".")
    return name if package.split(".")[0] == "sentence_transformers" else type_


def read_pooling(folder: ModelFolder, module: Module) -> tuple[dict[str, Any], int | None, str]:
    """Return the configuration of a pooling, its stated width, and the file that states both.

    Raises:
        UserError: the mode is unknown, there are several, or keys contradict each other.
    """
    config, name = folder.config_of(module)
    where = f"{folder.source}: {name}"
    _refuse_unknown(config, POOLING_KEYS, where=where, kind="Pooling")
    by_flag = [mode for key, mode in MODE_FLAGS.items() if config.get(key) is True]
    mode = config.get("pooling_mode")
    modes = by_flag or ["mean"] if mode is None else mode if isinstance(mode, list) else [mode]
    modes = [str(name) for name in modes]
    if mode is not None and by_flag and sorted(by_flag) != sorted(modes):
        flags = [key for key, flag_mode in MODE_FLAGS.items() if flag_mode in by_flag]
        raise UserError(
            f"{where}: pooling_mode={mode!r} contradicts {', '.join(flags)}=true. Restore the file."
        )
    if len(modes) != 1 or modes[0] not in BY_MODE:
        raise UserError(
            f"{where}: pools by {', '.join(modes) or 'nothing'}; what is supported is one of "
            f"{', '.join(BY_MODE)}."
        )
    include_prompt = config.get("include_prompt", True)
    if not isinstance(include_prompt, bool):
        raise UserError(f"{where}: include_prompt={include_prompt!r} must be true or false.")
    width = _pooling_width(config, where)
    return pooling_node(BY_MODE[modes[0]], include_prompt=include_prompt), width, name


def _pooling_width(config: Mapping[str, Any], where: str) -> int | None:
    keys = ("embedding_dimension", "word_embedding_dimension")  # of version 6, and of those before
    stated = {key: config[key] for key in keys if config.get(key) is not None}
    for key, width in stated.items():
        if type(width) is not int or width < 1:
            raise UserError(f"{where}: {key}={width!r}: a width is an integer of 1 or more.")
    if len(set(stated.values())) > 1:
        pairs = ", ".join(f"{key}={width}" for key, width in stated.items())
        raise UserError(f"{where}: {pairs} contradict each other. Restore the file.")
    return next(iter(stated.values()), None)


def read_dense(folder: ModelFolder, module: Module) -> Dense:
    """Return the configuration of a Dense module, with the file of its weights.

    Raises:
        UserError: its input or output is not the embedding, its activation is unknown, a width is
            invalid, or the weights are missing.
    """
    config, name = folder.config_of(module)
    where = f"{folder.source}: {name}"
    _refuse_unknown(config, DENSE_KEYS, where=where, kind="Dense")
    for key in ("module_input_name", "module_output_name"):
        if config.get(key) not in (None, "sentence_embedding"):
            raise UserError(
                f"{where}: {key}={config[key]!r}; what is supported is sentence_embedding alone."
            )
    for key in ("in_features", "out_features"):
        if type(config.get(key)) is not int or config[key] < 1:
            raise UserError(
                f"{where}: {key}={config.get(key)!r}: a width is an integer of 1 or more."
            )
    for key in ("bias", "use_residual"):
        if not isinstance(config.get(key, True), bool):
            raise UserError(f"{where}: {key}={config[key]!r} must be true or false.")
    weights = folder.find(module.path, "model.safetensors")
    weights = weights or folder.find(module.path, "pytorch_model.bin")
    if weights is None:
        raise UserError(
            f"{folder.source}: {module.path} holds neither model.safetensors nor "
            "pytorch_model.bin, the weights of its Dense. Restore the file."
        )
    return Dense(
        in_features=config["in_features"],
        out_features=config["out_features"],
        bias=config.get("bias", True),
        activation=_activation(config.get("activation_function"), where),
        use_residual=config.get("use_residual", False),
        weights=weights,
    )


def check_widths(folder: ModelFolder, chain: Sequence[Dense], *, width: int | None) -> None:
    """Refuse a Dense whose input width is not the output width of the module before it.

    Args:
        width: width of the pooled states; None: not stated.

    Raises:
        UserError: two widths differ.
    """
    before = "the pooling"
    for number, dense in enumerate(chain):
        if width is not None and dense.in_features != width:
            raise UserError(
                f"{folder.source}: {dense.weights.parent.name}/config.json: in_features="
                f"{dense.in_features}, and {before} gives embeddings of {width}. Restore the files."
            )
        width, before = dense.out_features, f"Dense {number + 1}"


def _refuse_unknown(config: Mapping[str, Any], known: set[str], *, where: str, kind: str) -> None:
    unknown = sorted(set(config) - known)
    if unknown:
        raise UserError(
            f"{where}: {', '.join(unknown)}: not known here (a {kind} has "
            f"{', '.join(sorted(known))})."
        )


def _activation(name: Any, where: str) -> str:
    """Return the activation's name in torch.nn; sentence-transformers' default if unset."""
    if name is None:
        return "Tanh"
    package, _, short = str(name).rpartition(".")
    if not package.startswith("torch.nn") or short not in ACTIVATIONS:
        raise UserError(
            f"{where}: activation_function={name!r}; what is supported is torch.nn's "
            f"{', '.join(ACTIVATIONS)}."
        )
    return short
