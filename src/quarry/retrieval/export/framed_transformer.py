"""The input module of an exported folder whose prompts are more than a prefix.

The file is copied into the folder and needs nothing but sentence-transformers, which puts a prompt
before a text and cuts the end off what is too long. Here a document has a title, outer white space
may be removed, text also stands after the text, or the text twice, and only the text may be cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers.base.modules import Transformer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


class FramedTransformer(Transformer):
    """A Transformer that puts each text into the frame that belongs to its prompt.

    A text is a string, or a dict {"title": TITLE, "text": TEXT}; a string is one without a title.

    Args:
        frames: by task ("query", "document"): `literals` stand before, between and after the copies
            of the text, `start_ids` and `end_ids` around all of it. `max_length` counts tokens: of
            `counted` (the end of the first literal) and the text where `counts_text`, else of
            everything. `strip` removes the outer white space of title and text; a title is followed
            by a space and the text, with `keeps_empty_title` also where it is empty.
        pools_last_copy: the pooling sees the last copy of the text and what follows, nothing else.
    """

    config_keys = [*Transformer.config_keys, "frames", "pools_last_copy"]  # noqa: RUF012

    def __init__(
        self,
        model_name_or_path: str,
        *,
        frames: dict[str, dict[str, Any]],
        pools_last_copy: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(model_name_or_path, **kwargs)
        self.frames = frames
        self.pools_last_copy = pools_last_copy

    def preprocess(
        self, inputs: Sequence[str | dict[str, str]], prompt: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Return the token ids of the framed texts, right-padded.

        Raises:
            ValueError: neither the task nor the prompt tells which frame is meant, or an input is
                neither a string nor a dict of title and text.
        """
        if not inputs:
            return {}
        frame = self._frame(prompt, kwargs.get("task"))
        texts, rows = self._fitted([_joined(item, frame) for item in inputs], frame)
        whole = [torch.tensor([*frame["start_ids"], *ids, *frame["end_ids"]]) for ids in rows]
        input_ids = pad_sequence(
            whole, batch_first=True, padding_value=self.tokenizer.pad_token_id or 0
        ).long()
        positions = torch.arange(input_ids.shape[1])
        mask = positions < torch.tensor([len(row) for row in whole])[:, None]
        features = {"input_ids": input_ids, "attention_mask": mask.long(), "modality": "text"}
        if self.pools_last_copy:
            starts = [
                self._last_copy(text, ids, frame) for text, ids in zip(texts, rows, strict=True)
            ]
            features["pooled"] = (mask & (positions >= torch.tensor(starts)[:, None])).long()
        elif frame["prompt_length"]:  # of which a pooling with include_prompt=False takes note
            features["prompt_length"] = frame["prompt_length"]
        return features

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """The last hidden states; the mask left behind is that of the tokens to pool."""
        pooled: Tensor | None = features.pop("pooled", None)
        features = super().forward(features, **kwargs)
        if pooled is not None:
            features["attention_mask"] = pooled
        return features

    def _frame(self, prompt: str | None, task: str | None) -> dict[str, Any]:
        if task in self.frames:
            return self.frames[task]
        matching = [f for f in self.frames.values() if f["literals"][0] == (prompt or "")]
        if not matching or any(frame != matching[0] for frame in matching):
            raise ValueError(
                f"The prompt {prompt!r} does not tell which of {', '.join(self.frames)} the texts "
                "are. Call encode_query or encode_document."
            )
        return matching[0]

    def _fitted(self, texts: list[str], frame: dict[str, Any]) -> tuple[list[str], list[list[int]]]:
        """The texts, cut where they are too long, and their ids without start and end ids."""
        literals, budget = frame["literals"], self._budget(frame)
        if literals[1:] == [""] and not frame["counts_text"]:  # nothing follows: cut the row
            return texts, self._encode([text.join(literals) for text in texts], budget)
        rows = self._encode([text.join(literals) for text in texts])
        limit = frame["max_length"] if frame["counts_text"] else budget
        for index, row in enumerate(rows):
            if len(row) > limit:
                texts[index] = self._cut(texts[index], frame)
                rows[index] = self._encode([texts[index].join(literals)])[0]
        return texts, rows

    def _cut(self, text: str, frame: dict[str, Any]) -> str:
        """The longest head of the text, in whole tokens, that there is room for."""
        literals, budget, counted = frame["literals"], self._budget(frame), frame["counted"]
        offsets, num_copies = self._offsets(counted + text), len(literals) - 1
        room = frame["max_length"]
        if not frame["counts_text"]:
            template = self._encode(["".join(literals)])[0] if any(literals) else []
            room = (budget - len(template)) // num_copies
        room = min(room, len(offsets))
        while room > 0:
            end = len(counted + text) if room == len(offsets) else offsets[room][0]
            head = text[: max(0, end - len(counted))]
            if frame["counts_text"]:
                return head
            # tokens merge across the border of text and template, so the parts do not add up
            excess = len(self._encode([head.join(literals)])[0]) - budget
            if excess <= 0:
                return head
            room -= -(-excess // num_copies)
        return ""

    def _last_copy(self, text: str, ids: list[int], frame: dict[str, Any]) -> int:
        """The token in which the last copy of the text begins."""
        literals = frame["literals"]
        if len(literals) < 3:
            return 0
        start = len(text.join(literals[:-1]))
        ends = [end for _, end in self._offsets(text.join(literals))]
        index = next((i for i, end in enumerate(ends) if end > start), len(ids))
        return len(frame["start_ids"]) + min(index, len(ids) + len(frame["end_ids"]) - 1)

    def _budget(self, frame: dict[str, Any]) -> int:
        budget: int = frame["max_length"] - len(frame["start_ids"]) - len(frame["end_ids"])
        return budget

    def _encode(self, texts: list[str], max_length: int | None = None) -> list[list[int]]:
        ids: list[list[int]] = self.tokenizer(
            texts,
            add_special_tokens=False,
            truncation=max_length is not None,
            max_length=max_length,
            verbose=False,
        )["input_ids"]
        return ids

    def _offsets(self, text: str) -> list[tuple[int, int]]:
        offsets: list[tuple[int, int]] = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )["offset_mapping"]
        return offsets


def _joined(item: str | dict[str, str], frame: dict[str, Any]) -> str:
    """Return the text that is framed: title, space and text."""
    # sentence-transformers takes a TypeError for another signature and calls again, prompt in front
    parts = {"text": item} if isinstance(item, str) else item
    is_known = isinstance(parts, dict) and "text" in parts and set(parts) <= {"title", "text"}
    if not is_known or not all(isinstance(part, str) for part in parts.values()):
        raise ValueError(
            f"inputs={str(item)[:80]}: no text (a string, or a dict of strings with the key text "
            'and, for a title, the key title). Fix: {"title": TITLE, "text": TEXT}'
        )
    title, text = parts.get("title", ""), parts["text"]
    if frame["strip"]:
        title, text = title.strip(), text.strip()
    if frame["keeps_empty_title"] or (title and text):
        return f"{title} {text}"
    return title or text
