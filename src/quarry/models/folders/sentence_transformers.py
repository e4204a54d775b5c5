"""Reads the files that sentence-transformers (2.x to 6.x) writes beside a model's weights."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from quarry.errors import UserError
from quarry.models.backbones.model_files import model_file, read_json
from quarry.models.folders.pooling_modes import BY_MODE, pooling_node
from quarry.models.folders.stated import Fact, Statement
from quarry.models.projections import ACTIVATIONS, Dense
from quarry.types import ROLES

logger = logging.getLogger(__name__)

MODULES_FILE = "modules.json"
MODEL_FILE = "config_sentence_transformers.json"
TRANSFORMER_FILES = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)

MODE_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Keys of versions before 6.x -> names of modes."""

TEXT = {"method": "forward", "method_output_name": "last_hidden_state"}

DENSE_KEYS = {
    "in_features", "out_features", "bias", "activation_function", "module_input_name",
    "module_output_name", "use_residual",
}  # fmt: skip
POOLING_KEYS = {
    "word_embedding_dimension", "embedding_dimension", "pooling_mode", "include_prompt",
    *MODE_FLAGS,
}  # fmt: skip

HARMLESS = {
    "max_seq_length", "do_lower_case", "query_length", "document_length", "transformer_task",
    "modality_config", "module_output_name", "unpad_inputs", "model_args", "tokenizer_args",
    "config_args", "model_kwargs", "processor_kwargs", "config_kwargs", "processing_kwargs",
    "query_expansion",
}  # fmt: skip
"""Keys of the transformer's file that are looked at here, or that change no embedding."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Module:
    """One entry of modules.json."""

    kind: str
    path: str


def read_sentence_transformers(source: str, *, revision: str | None = None) -> Statement | None:
    """Return what the files of sentence-transformers state; None where there are none.

    The result says what `encode_query` and `encode_document` of that library do with the folder.

    Args:
        source: a folder or a hub id.
        revision: of a hub id.

    Raises:
        UserError: the folder asks for something that cannot be done here (a module, an activation,
            a similarity), or its files contradict each other; with file, found and expected.
    """
    modules_file = model_file(source, MODULES_FILE, revision=revision)
    if modules_file is None:
        return None
    modules = _modules(modules_file)
    return _Reader(source, revision, modules).read()


class _Reader:
    """Reads one folder whose modules are known."""

    def __init__(self, source: str, revision: str | None, modules: list[_Module]) -> None:
        self.source = source
        self.revision = revision
        self.modules = modules
        self.notes: list[str] = []

    def read(self) -> Statement:
        transformer, pooling, *rest = self.modules
        settings, where = self._transformer_settings(transformer)
        config, file = self._config(pooling)
        facts = {"model.pooling": Fact(value=self._pooling(config, file), source=file)}
        dim = config.get("embedding_dimension", config.get("word_embedding_dimension"))
        denses = [module for module in rest if module.kind == "Dense"]
        projections = self._projections(denses, dim=dim, pooling_file=file)
        facts |= self._similarity(has_normalize=rest[-1:] == [*rest[len(denses) :]] != [])
        facts |= self._prompts()
        facts |= self._lengths(settings, where, transformer=transformer.path)
        facts["prompt.end_token"] = Fact(value="tokenizer", source="tokenizer.json")
        return Statement(
            facts=facts,
            projections=projections,
            transformer=transformer.path,
            lower_case=settings.get("do_lower_case") is True,
            notes=tuple(self.notes),
        )

    def _find(self, path: str, name: str) -> Path | None:
        return model_file(self.source, str(PurePosixPath(path) / name), revision=self.revision)

    def _config(self, module: _Module) -> tuple[dict[str, Any], str]:
        """The config.json of a module, and how it is called."""
        name = f"{module.path}/config.json"
        file = self._find(module.path, "config.json")
        if file is None:
            raise UserError(
                f"{self.source}: {MODULES_FILE} names a {module.kind} in {module.path!r}, and "
                f"there is no {name}. Restore the file."
            )
        return read_json(file), name

    def _transformer_settings(self, module: _Module) -> tuple[dict[str, Any], str]:
        for name in TRANSFORMER_FILES:
            file = self._find(module.path, name)
            if file is not None:
                settings = read_json(file)
                _check_transformer(settings, str(file))
                return settings, name
        return {}, MODULES_FILE

    def _pooling(self, config: Mapping[str, Any], file: str) -> dict[str, Any]:
        _refuse_unknown(config, POOLING_KEYS, file=f"{self.source}: {file}", what="Pooling")
        by_flag = [mode for key, mode in MODE_FLAGS.items() if config.get(key) is True]
        mode = config.get("pooling_mode")
        modes = by_flag or ["mean"] if mode is None else mode if isinstance(mode, list) else [mode]
        if mode is not None and by_flag and sorted(by_flag) != sorted(modes):
            raise UserError(
                f"{self.source}: {file}: pooling_mode={mode!r} contradicts "
                f"{', '.join(key for key, m in MODE_FLAGS.items() if m in by_flag)}=true. Restore "
                "the file."
            )
        if len(modes) != 1 or modes[0] not in BY_MODE:
            raise UserError(
                f"{self.source}: {file}: pools by {', '.join(map(str, modes))}; what is supported "
                f"is one of {', '.join(BY_MODE)}."
            )
        include_prompt = config.get("include_prompt", True)
        if not isinstance(include_prompt, bool):
            raise UserError(
                f"{self.source}: {file}: include_prompt={include_prompt!r} must be true or false."
            )
        return pooling_node(BY_MODE[modes[0]], include_prompt=include_prompt)

    def _projections(
        self, modules: list[_Module], *, dim: Any, pooling_file: str
    ) -> tuple[Dense, ...]:
        chain: list[Dense] = []
        width, before = dim, pooling_file
        for module in modules:
            dense = self._dense(module)
            if width is not None and dense.in_features != width:
                raise UserError(
                    f"{self.source}: {module.path}/config.json: in_features={dense.in_features}, "
                    f"and {before} gives embeddings of {width}. Restore the files."
                )
            width, before = dense.out_features, f"{module.path}/config.json"
            chain.append(dense)
        return tuple(chain)

    def _dense(self, module: _Module) -> Dense:
        config, name = self._config(module)
        where = f"{self.source}: {name}"
        _refuse_unknown(config, DENSE_KEYS, file=where, what="Dense")
        places = {config.get(f"module_{end}_name") for end in ("input", "output")}
        if not places <= {None, "sentence_embedding"}:
            raise UserError(
                f"{where}: the Dense works on {', '.join(sorted(map(str, places)))}; what is "
                "supported is sentence_embedding alone."
            )
        widths = [config.get("in_features"), config.get("out_features")]
        if not all(isinstance(width, int) and width > 0 for width in widths):
            raise UserError(f"{where}: in_features, out_features={widths}: must be 1 or more.")
        weights = self._find(module.path, "model.safetensors")
        weights = weights or self._find(module.path, "pytorch_model.bin")
        if weights is None:
            raise UserError(
                f"{self.source}: {module.path} holds neither model.safetensors nor "
                "pytorch_model.bin, the weights of its Dense. Restore the file."
            )
        return Dense(
            in_features=widths[0],
            out_features=widths[1],
            bias=bool(config.get("bias", True)),
            activation=_activation(config.get("activation_function"), where),
            use_residual=bool(config.get("use_residual", False)),
            weights=weights,
        )

    def _model_settings(self) -> dict[str, Any]:
        file = self._find("", MODEL_FILE)
        return {} if file is None else read_json(file)

    def _similarity(self, *, has_normalize: bool) -> dict[str, Fact]:
        """Whether embeddings are compared at length 1: by a module, or by the similarity."""
        settings = self._model_settings()
        kind = settings.get("model_type", "SentenceTransformer")
        if kind != "SentenceTransformer":
            raise UserError(
                f"{self.source}: {MODEL_FILE}: model_type={kind!r}; what is supported is "
                "SentenceTransformer."
            )
        if settings.get("truncate_dim") is not None:
            raise UserError(
                f"{self.source}: {MODEL_FILE}: truncate_dim={settings['truncate_dim']}: embeddings "
                "that are cut are not supported. Fix: remove the key to measure them in full."
            )
        similarity = settings.get("similarity_fn_name")
        if similarity not in (None, "cosine", "dot"):
            raise UserError(
                f"{self.source}: {MODEL_FILE}: similarity_fn_name={similarity!r}; what is "
                "supported is cosine and dot."
            )
        if has_normalize:
            return {"model.is_normalized": Fact(value=True, source=f"{MODULES_FILE} (Normalize)")}
        if similarity == "dot":
            found = f"{MODEL_FILE} (similarity_fn_name=dot)"
            return {"model.is_normalized": Fact(value=False, source=found)}
        found = f"{MODEL_FILE} (similarity_fn_name=cosine)"
        default = "sentence-transformers' default similarity, cosine"
        source = default if similarity is None else found
        return {"model.is_normalized": Fact(value=True, source=source)}

    def _prompts(self) -> dict[str, Fact]:
        """What `encode_query` and `encode_document` put in front of texts."""
        settings = self._model_settings()
        prompts = settings.get("prompts") or {}
        if not isinstance(prompts, dict) or not all(
            text is None or isinstance(text, str) for text in prompts.values()
        ):
            raise UserError(f"{self.source}: {MODEL_FILE}: prompts must map names to texts.")
        facts = {}
        for role in ROLES:
            text = prompts.get(role)
            if text is not None:
                template = text.replace("{", "{{").replace("}", "}}") + "{text}"
                source = f"{MODEL_FILE} (prompts.{role})"
                facts[f"prompt.{role}"] = Fact(value=template, source=source)
        self._note_unused(prompts, settings.get("default_prompt_name"))
        return facts

    def _note_unused(self, prompts: Mapping[str, str | None], default: str | None) -> None:
        """Prompts that a reader of the file would expect to be used, and which are not."""
        names = [name for name in ("passage", "corpus") if not prompts.get("document")]
        names += [default] if default not in (None, *ROLES, *names) else []
        for name in names:
            if text := prompts.get(name):
                fix = (text.replace("{", "{{").replace("}", "}}") + "{text}").replace("\n", "\\n")
                self.notes.append(
                    f"{MODEL_FILE} holds a prompt {name!r} ({text!r}) that neither encode_query "
                    "nor encode_document of sentence-transformers uses, and it is not used here. "
                    f"If the model was trained with it: 'prompt.document=\"{fix}\"'"
                )

    def _lengths(
        self, settings: Mapping[str, Any], where: str, *, transformer: str
    ) -> dict[str, Fact]:
        """Tokens in all of each role."""
        common = None
        if settings.get("max_seq_length") is not None:
            common = Fact(value=settings["max_seq_length"], source=where)
        else:
            common = self._tokenizer_length(transformer)
        facts = {}
        for role in ROLES:
            own = settings.get(f"{role}_length")
            fact = common if own is None else Fact(value=own, source=where)
            if fact is None:
                continue
            if isinstance(fact.value, bool) or not isinstance(fact.value, int) or fact.value < 1:
                raise UserError(
                    f"{self.source}: {fact.source}: texts of {fact.value!r} tokens; a length is a "
                    "whole number of 1 or more."
                )
            facts[f"prompt.max_{role}_length"] = fact
        return facts

    def _tokenizer_length(self, transformer: str) -> Fact | None:
        """What the tokenizer or the positions of the model have room for."""
        lengths = []
        for name, key in (
            ("tokenizer_config.json", "model_max_length"),
            ("config.json", "max_position_embeddings"),
        ):
            file = self._find(transformer, name)
            value = None if file is None else read_json(file).get(key)
            if isinstance(value, int | float) and 0 < value < 10**9:
                lengths.append((int(value), f"{name} ({key})"))
        return Fact(value=min(lengths)[0], source=min(lengths)[1]) if lengths else None


def _modules(file: Path) -> list[_Module]:
    """The modules, in an order that can be computed here: Transformer, Pooling, Dense, Normalize.

    Raises:
        UserError: another module, or another order.
    """
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        modules = [_Module(kind=_kind(str(e["type"])), path=str(e["path"])) for e in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file}: must be a list of modules with type and path ({type(error).__name__}: "
            f"{error}). Restore the file."
        ) from error
    allowed = ("Transformer", "Pooling", "Dense", "Normalize")
    unknown = [module.kind for module in modules if module.kind not in allowed]
    if unknown:
        raise UserError(
            f"{file}: the model has a module {unknown[0]}, which is not supported; what is, is "
            f"{', '.join(allowed)}."
        )
    kinds = [module.kind for module in modules]
    num_dense = kinds.count("Dense")
    expected = ["Transformer", "Pooling", *["Dense"] * num_dense]
    if kinds not in (expected, [*expected, "Normalize"]):
        raise UserError(
            f"{file}: the modules are {', '.join(kinds) or 'none'}; what is supported is "
            "Transformer, Pooling, then any number of Dense, then at most one Normalize."
        )
    return modules


def _kind(type_: str) -> str:
    """The class of a module of the library; of others the full name, which is none of ours."""
    package, _, name = type_.rpartition(".")
    return name if package.split(".")[0] == "sentence_transformers" else type_


def _check_transformer(settings: Mapping[str, Any], file: str) -> None:
    """Refuses what changes embeddings in a way that is not followed here."""
    task = settings.get("transformer_task", "feature-extraction")
    if task != "feature-extraction":
        raise UserError(f"{file}: transformer_task={task!r}; what is supported is feature-extraction.")
    modalities = settings.get("modality_config", {"text": TEXT})
    if "message" in modalities or modalities.get("text") != TEXT:
        raise UserError(
            f"{file}: modality_config={modalities}: texts go through a chat template or another "
            f"output than the last hidden state; what is supported is text: {TEXT}."
        )
    for key in ("query_expansion", "processing_kwargs"):
        if settings.get(key):
            raise UserError(f"{file}: {key}={settings[key]} is not supported.")
    unknown = sorted(set(settings) - HARMLESS)
    if unknown:
        logger.warning("%s: %s: not known here, and not used", file, ", ".join(unknown))


def _refuse_unknown(config: Mapping[str, Any], known: set[str], *, file: str, what: str) -> None:
    unknown = sorted(set(config) - known)
    if unknown:
        raise UserError(
            f"{file}: {', '.join(unknown)}: not known here (a {what} has "
            f"{', '.join(sorted(known))})."
        )


def _activation(name: Any, where: str) -> str:
    """The name in torch.nn; sentence-transformers' default where none is stated."""
    if name is None:
        return "Tanh"
    package, _, short = str(name).rpartition(".")
    if not package.startswith("torch.nn") or short not in ACTIVATIONS:
        raise UserError(
            f"{where}: activation_function={name!r}; what is supported is torch.nn's "
            f"{', '.join(ACTIVATIONS)}."
        )
    return short
