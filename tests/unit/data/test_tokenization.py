"""Token ids by hand: the template is never cut, the end token stands once and last."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from helpers.models import BOS, EOS, letter_ids, letter_tokenizer
from quarry.data.prompts import Prompt
from quarry.data.tokenization import TextTokenizer
from quarry.errors import UserError
from quarry.models.backbones.huggingface import load_tokenizer
from quarry.types import Document, Query

SHARED = Path(__file__).resolve().parents[3].parent / "shared"
ENDOFTEXT, IM_START, IM_END = 151643, 151644, 151645


def ids_of(
    texts: Sequence[str], *, tokenizer: PreTrainedTokenizerBase, prompt: Prompt
) -> list[list[int]]:
    """Ids of the texts as queries."""
    queries = [Query(query_id=f"q{i}", text=text) for i, text in enumerate(texts)]
    rows = TextTokenizer(tokenizer=tokenizer, prompt=prompt)(queries, "query")
    assert all(row.ids.dtype == np.int64 for row in rows)
    return [row.ids.tolist() for row in rows]


def test_template_text_and_end_token() -> None:
    prompt = Prompt(query="Query:{text}")
    assert ids_of(["ab", "c"], tokenizer=letter_tokenizer(), prompt=prompt) == [
        [*letter_ids("Query:ab"), EOS],
        [*letter_ids("Query:c"), EOS],
    ]


@pytest.mark.parametrize("length", range(6, 12))
@pytest.mark.parametrize("text", ["", "a", "abc", "abcdefghij"])
def test_only_the_text_is_cut(length: int, text: str) -> None:
    prompt = Prompt(query="Q:{text} is:", max_query_length=length + 1)
    room = length + 1 - 6  # Q : i s : and the end token
    (ids,) = ids_of([text], tokenizer=letter_tokenizer(), prompt=prompt)
    assert ids == [*letter_ids("Q:" + text[:room] + "is:"), EOS]


def test_roles_have_their_own_template_and_length() -> None:
    prompt = Prompt(
        query="Q:{text}", document="Passage:{text}", max_query_length=5, max_document_length=12
    )
    tokenizer = TextTokenizer(tokenizer=letter_tokenizer(), prompt=prompt)
    (query,) = tokenizer([Query(query_id="q", text="abcdef")], "query")
    (document,) = tokenizer([Document(document_id="d", title="xyz", text="abc")], "document")
    assert query.ids.tolist() == [*letter_ids("Q:ab"), EOS]
    assert document.ids.tolist() == [*letter_ids("Passage:xyz"), EOS]


def test_a_leading_special_token_is_kept_and_counted() -> None:
    prompt = Prompt(query="Q:{text}", max_query_length=6)
    rows = ids_of(["abcdef", ""], tokenizer=letter_tokenizer(has_bos=True), prompt=prompt)
    assert rows == [[BOS, *letter_ids("Q:ab"), EOS], [BOS, *letter_ids("Q:"), EOS]]


def test_without_end_token() -> None:
    prompt = Prompt(query="Q:{text}", end_token=None, max_query_length=4)
    tokenizer = letter_tokenizer(has_eos=False)
    assert ids_of(["abc", ""], tokenizer=tokenizer, prompt=prompt) == [
        letter_ids("Q:ab"),
        letter_ids("Q:"),
    ]


def test_a_tokenizer_that_cuts_on_the_left_still_keeps_the_template() -> None:
    tokenizer = letter_tokenizer()
    tokenizer.truncation_side = "left"
    prompt = Prompt(query="Q:{text}", max_query_length=5)
    assert ids_of(["abcdef"], tokenizer=tokenizer, prompt=prompt) == [[*letter_ids("Q:ab"), EOS]]


def test_a_call_does_not_change_the_next_one() -> None:
    tokenizer = TextTokenizer(
        tokenizer=letter_tokenizer(), prompt=Prompt(max_query_length=3, max_document_length=9)
    )
    document = Document(document_id="d", text="abcdef")
    (before,) = tokenizer([document], "document")
    tokenizer([Query(query_id="q", text="abcdef")], "query")
    (after,) = tokenizer([document], "document")
    assert before.ids.tolist() == after.ids.tolist() == [*letter_ids("abcdef"), EOS]


@pytest.mark.parametrize("num_copies", [1, 2])
@pytest.mark.parametrize("length", range(1, 9))
def test_lengths_of_the_text_alone_leave_the_template_on_top(length: int, num_copies: int) -> None:
    prompt = Prompt(
        query="Q:" + "{text} is:" * num_copies, max_query_length=length, length_counts="text"
    )
    (ids,) = ids_of(["abcde"], tokenizer=letter_tokenizer(), prompt=prompt)
    text = "abcde"[:length]
    assert ids == [*letter_ids("Q:" + f"{text}is:" * num_copies), EOS]


@pytest.mark.parametrize("length", range(3, 9))
def test_lengths_of_the_turn_count_what_stands_before_the_text(length: int) -> None:
    tokenizer = letter_tokenizer()
    tokenizer.chat_template = "be good {{ messages[0].content }} bye"
    prompt = Prompt(query="Q:{text}", is_chat=True, max_query_length=length, length_counts="turn")
    (ids,) = ids_of(["abcde"], tokenizer=tokenizer, prompt=prompt)
    assert ids == [*letter_ids("begoodQ:" + "abcde"[: length - 2] + "bye"), EOS]


def test_a_turn_that_leaves_no_room_is_refused() -> None:
    tokenizer = letter_tokenizer()
    tokenizer.chat_template = "{{ messages[0].content }} bye"
    prompt = Prompt(query="Q:{text}", is_chat=True, max_query_length=2, length_counts="turn")
    with pytest.raises(UserError, match=r"max_query_length=2 leaves no room .* Raise it to 3"):
        TextTokenizer(tokenizer=tokenizer, prompt=prompt)


@pytest.mark.parametrize("length", range(12, 26))
def test_both_copies_are_cut_alike_and_the_second_is_marked(length: int) -> None:
    prompt = Prompt(query="Q:{text} again:{text}", max_query_length=length)
    tokenizer = TextTokenizer(tokenizer=letter_tokenizer(has_bos=True), prompt=prompt)
    (row,) = tokenizer([Query(query_id="q", text="abcdefg")], "query")
    text = "abcdefg"[: (length - 10) // 2]  # <bos>, Q:again: and <eos> take ten
    assert row.ids.tolist() == [BOS, *letter_ids(f"Q:{text}again:{text}"), EOS]
    assert row.ids[row.pool_start :].tolist() == [*letter_ids(text), EOS]


def test_the_second_copy_of_an_empty_text_is_the_end_token() -> None:
    prompt = Prompt(query="Q:{text} again:{text}")
    tokenizer = TextTokenizer(tokenizer=letter_tokenizer(), prompt=prompt)
    (row,) = tokenizer([Query(query_id="q", text="")], "query")
    assert row.ids[row.pool_start :].tolist() == [EOS]


def test_a_missing_title_keeps_its_space_where_the_template_says_so(
    qwen: PreTrainedTokenizerBase,
) -> None:
    """Tevatron joins prefix, title, a space and the text: the space is a part of the next token."""
    documents = [
        Document(document_id="a", text="Love is"),
        Document(document_id="b", title="Love", text="is"),
    ]
    prompt = Prompt(document="Passage:{title} {text}", end_token=None)
    rows = TextTokenizer(tokenizer=qwen, prompt=prompt)(documents, "document")
    plain = [qwen.encode(text) for text in ("Passage: Love is", "Passage:Love is")]
    assert [row.ids.tolist() for row in rows] == plain


def test_merges_cross_the_border_between_text_and_template(qwen: PreTrainedTokenizerBase) -> None:
    prompt = Prompt(query='Query: "{text}". Use', end_token=None, length_counts="text")
    rows = ids_of(["f(", "what is"], tokenizer=qwen, prompt=prompt)
    assert rows == [qwen.encode('Query: "f(". Use'), qwen.encode('Query: "what is". Use')]
    assert rows[0] != qwen.encode('Query: "f(') + qwen.encode('". Use')


def test_a_character_of_several_tokens_is_kept_whole_or_not_at_all(
    qwen: PreTrainedTokenizerBase,
) -> None:
    text = "ab 𓀀𓀁"  # four bytes, several tokens each
    for length in range(1, 9):
        prompt = Prompt(
            query="{text}.", end_token=None, max_query_length=length, length_counts="text"
        )
        (ids,) = ids_of([text], tokenizer=qwen, prompt=prompt)
        assert qwen.decode(ids).removesuffix(".") in ("ab", "ab ", "ab 𓀀", text)


def test_an_end_token_by_name(qwen: PreTrainedTokenizerBase) -> None:
    prompt = Prompt(query="a{text}", end_token="<|endoftext|>")
    assert ids_of([""], tokenizer=qwen, prompt=prompt) == [[64, ENDOFTEXT]]
    with pytest.raises(UserError, match=r"end_token='</s>' is no special token.*endoftext"):
        TextTokenizer(tokenizer=qwen, prompt=Prompt(end_token="</s>"))


def test_nothing_to_tokenize() -> None:
    assert ids_of([], tokenizer=letter_tokenizer(), prompt=Prompt()) == []


def test_a_text_without_any_token_is_refused_by_id() -> None:
    tokenizer = TextTokenizer(tokenizer=letter_tokenizer(), prompt=Prompt(end_token=None))
    documents = [Document(document_id="d0", text="a"), Document(document_id="d1", text=" \n")]
    with pytest.raises(UserError, match=r"document 'd1' has no tokens.*prompt\.document="):
        tokenizer(documents, "document")


def test_a_tokenizer_without_end_token_is_refused() -> None:
    with pytest.raises(UserError, match=r"end_token=auto.*eos_token.*end_token=TOKEN"):
        TextTokenizer(tokenizer=letter_tokenizer(has_eos=False), prompt=Prompt())


@pytest.mark.parametrize("role", ["query", "document"])
def test_a_template_longer_than_the_length_is_refused(role: str) -> None:
    # <bos> Q u e r y : <eos> are 8 tokens; one more for the text
    settings = {role: "Query:{text}", f"max_{role}_length": 8}
    tokenizer = letter_tokenizer(has_bos=True)
    with pytest.raises(UserError, match=rf"max_{role}_length=8 .*need 8 tokens. Raise it to 9"):
        TextTokenizer(tokenizer=tokenizer, prompt=Prompt(**settings))
    TextTokenizer(tokenizer=tokenizer, prompt=Prompt(**(settings | {f"max_{role}_length": 9})))


@pytest.fixture(scope="module")
def qwen_folder() -> Path:
    folder = SHARED / "models" / "qwen2.5-tokenizer"
    if not folder.is_dir():
        pytest.skip("the Qwen2.5 tokenizer is not beside the repository")
    return folder


@pytest.fixture(scope="module")
def qwen(qwen_folder: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(str(qwen_folder))


@pytest.fixture
def ending(qwen: PreTrainedTokenizerBase, request: pytest.FixtureRequest) -> int:
    """Gives the shared tokenizer the end token of a variant; its id."""
    qwen.eos_token = request.param
    end: int = qwen.eos_token_id
    return end


BOTH_ENDS = pytest.mark.parametrize("ending", ["<|endoftext|>", "<|im_end|>"], indirect=True)


@BOTH_ENDS
def test_golden_ids_of_qwen(qwen: PreTrainedTokenizerBase, ending: int) -> None:
    assert ending == {"<|endoftext|>": ENDOFTEXT, "<|im_end|>": IM_END}[qwen.eos_token]
    assert qwen.pad_token_id == ENDOFTEXT  # of the base variants both
    prompt = Prompt(query="Query:{text}", document="Passage:{text}", max_document_length=6)
    assert ids_of(["what is love", ""], tokenizer=qwen, prompt=prompt) == [
        [2859, 25, 12555, 374, 2948, ending],
        [2859, 25, ending],
    ]
    tokenizer = TextTokenizer(tokenizer=qwen, prompt=prompt)
    (row,) = tokenizer([Document(document_id="d", text="Love is a feeling")], "document")
    assert row.ids.tolist() == [12187, 424, 25, 28251, 374, ending]  # " a feeling" is cut


@BOTH_ENDS
def test_qwen_appends_the_end_token_to_a_text_that_ends_with_it(
    qwen: PreTrainedTokenizerBase, ending: int
) -> None:
    """A text of pad tokens is a text: nothing is told by comparing ids with the pad token."""
    prompt = Prompt(query="{text}", max_query_length=4)
    (row,) = ids_of([qwen.eos_token * 9], tokenizer=qwen, prompt=prompt)
    assert row == [ending] * 4


def test_chat_markers_of_a_template_become_their_tokens(qwen: PreTrainedTokenizerBase) -> None:
    prompt = Prompt(
        query="<|im_start|>user\n{text}<|im_end|>\n", end_token=None, max_query_length=6
    )
    (row,) = ids_of(["hi there you"], tokenizer=qwen, prompt=prompt)
    assert row == [IM_START, 872, 198, 6023, IM_END, 198]


@pytest.mark.parametrize(
    "text", ["def f(x): return x", "naïve 你好 \n\n\t end ", "it's 12 o'clock"]
)
def test_qwen_ids_are_those_of_the_tokenizer_file(
    qwen: PreTrainedTokenizerBase, qwen_folder: Path, text: str
) -> None:
    plain = tokenizers.Tokenizer.from_file(str(qwen_folder / "tokenizer.json"))
    (row,) = ids_of([text], tokenizer=qwen, prompt=Prompt(query="Query:{text}", end_token=None))
    assert row == plain.encode("Query:" + text, add_special_tokens=False).ids


def test_a_fast_tokenizer_made_in_memory_works_as_one_from_a_folder(tmp_path: Path) -> None:
    letter_tokenizer(has_bos=True).save_pretrained(tmp_path)
    loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    prompt = Prompt(query="Q:{text}")
    texts = ["abc", "", "a c"]
    assert ids_of(texts, tokenizer=loaded, prompt=prompt) == ids_of(
        texts, tokenizer=letter_tokenizer(has_bos=True), prompt=prompt
    )


@pytest.mark.parametrize(
    ("query", "has_bos", "expected"),
    [("{text}", False, 0), ("{text}", True, 0), ("Q:{text}", False, 2), ("Q:{text}", True, 3)],
)
def test_tokens_of_the_prompt_and_where_a_text_begins(
    query: str, has_bos: bool, expected: int
) -> None:
    # without a template none are left out, not even the first special token
    tokenizer = TextTokenizer(
        tokenizer=letter_tokenizer(has_bos=has_bos), prompt=Prompt(query=query)
    )
    assert tokenizer.num_prompt_tokens("query") == expected
    (row,) = tokenizer([Query(query_id="q", text="abc")], "query")
    assert row.pool_start == expected
    assert tokenizer.num_prompt_tokens("document") == 0


def test_a_text_of_nothing_but_its_prompt_is_pooled_from_its_last_token_on() -> None:
    prompt = Prompt(query="Q:{text}", end_token=None)
    tokenizer = TextTokenizer(tokenizer=letter_tokenizer(), prompt=prompt)
    (row,) = tokenizer([Query(query_id="q", text="")], "query")
    assert (row.ids.tolist(), row.pool_start) == (letter_ids("Q:"), 1)


@pytest.mark.parametrize(
    ("counts", "query", "expected"),
    [
        ("all", "Q:{text} is:", 9),
        ("text", "Q:{text} is:", 9 + 1 + 2 + 3 + 1),  # <bos>, "Q:", "is:" and the end token
        ("text", "{text}", 9 + 1 + 1),
    ],
)
def test_the_longest_text_of_a_role(counts: str, query: str, expected: int) -> None:
    prompt = Prompt(query=query, max_query_length=9, length_counts=counts)  # type: ignore[arg-type]
    tokenizer = TextTokenizer(tokenizer=letter_tokenizer(has_bos=True), prompt=prompt)
    assert tokenizer.longest("query") == expected
    (row,) = tokenizer([Query(query_id="q", text="abcdefghijklmnop")], "query")
    assert len(row) == expected


def test_the_longest_turn_counts_what_stands_before_the_text_once() -> None:
    backend = letter_tokenizer()
    backend.chat_template = "be good {{ messages[0].content }} bye"
    prompt = Prompt(query="Q:{text}", is_chat=True, max_query_length=5, length_counts="turn")
    tokenizer = TextTokenizer(tokenizer=backend, prompt=prompt)
    (row,) = tokenizer([Query(query_id="q", text="abcdefgh")], "query")
    assert tokenizer.longest("query") == len(row) == len(letter_ids("begoodQ:abcbye")) + 1
