"""tests: text: tokens that a user cannot forge, streams that split no character, templates in a sandbox."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import transformers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import decoders

from edgewise.errors import BundleError, GenerationError
from edgewise.text.chat import ChatTemplate, Message
from edgewise.text.stream import LONGEST, TextStream
from edgewise.text.tokenizer import Tokenizer
from toy_tokenizers import CONTROL, byte_level, metaspace, sentencepiece, with_control

CHATML = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|user|>' + message.role + '\n' + message.content | trim + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}<|user|>assistant\n{% endif %}"
)


TOKENIZERS = {make.__name__: with_control(make) for make in (byte_level, sentencepiece, metaspace)}
KINDS = pytest.mark.parametrize("kind", TOKENIZERS)
WITH_BYTES = pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])

texts = st.text(max_size=60) | st.lists(
    st.sampled_from(
        [*CONTROL, "hello", " a", "\n\n", "\U0001f600", "\u0645\u0631\u062d", "\u4f60", "\ufffd", "<|", "|>"]
    )
).map("".join)


def stream(tokenizer: Tokenizer, tokens: Sequence[int], after: Sequence[int] = ()) -> list[str]:
    text = TextStream(tokenizer, after=after)
    return [*(text.push(token) for token in tokens), text.flush()]


@KINDS
@given(text=texts)
@settings(max_examples=100, deadline=None)
def test_the_pieces_of_a_text_are_the_text(kind: str, text: str) -> None:
    tokenizer = TOKENIZERS[kind]
    tokens = tokenizer.encode(text)
    pieces = stream(tokenizer, tokens)
    assert "".join(pieces) == tokenizer.decode(tokens)


@WITH_BYTES
@given(text=texts)
@settings(max_examples=100, deadline=None)
def test_a_text_with_whole_characters_is_streamed_without_a_broken_one(kind: str, text: str) -> None:
    tokenizer = TOKENIZERS[kind]
    pieces = stream(tokenizer, tokenizer.encode(text.replace("\ufffd", "?")))
    assert not any("\ufffd" in piece for piece in pieces)
    assert "".join(pieces) == text.replace("\ufffd", "?")


@given(st.lists(st.integers(0, 261), max_size=120))
@settings(max_examples=200, deadline=None)
def test_any_bytes_at_all_stream_as_they_decode(tokens: list[int]) -> None:
    """Random bytes: hardly ever a character, and for longer than a stream looks back."""
    tokenizer = TOKENIZERS["byte_level"]
    assert "".join(stream(tokenizer, tokens)) == tokenizer.decode(tokens)


@KINDS
@given(before=texts, text=texts)
@example(before="\u0800\ufffd", text="0")
@settings(max_examples=100, deadline=None)
def test_a_text_goes_on_where_its_prompt_ends(kind: str, before: str, text: str) -> None:
    """With the space before its first word, which a decoder drops at the beginning of a text."""
    tokenizer = TOKENIZERS[kind]
    prompt, whole = tokenizer.encode(before), tokenizer.encode(before + text)
    if whole[: len(prompt)] == prompt:  # otherwise the last token of the prompt reaches into the text
        pieces = stream(tokenizer, whole[len(prompt) :], after=prompt)
        assert tokenizer.decode(prompt) + "".join(pieces) == tokenizer.decode(whole)


def test_the_space_before_the_first_word_of_an_answer_is_kept() -> None:
    tokenizer = TOKENIZERS["sentencepiece"]
    prompt, answer = tokenizer.encode("the"), tokenizer.encode("a rose")[1:]
    assert "".join(stream(tokenizer, answer, after=prompt)) == " a rose"
    assert "".join(stream(tokenizer, answer)) == "a rose"


def test_a_token_costs_the_same_after_a_thousand_others() -> None:
    """Bytes that never become a character are the worst case: how much is decoded again is bounded."""
    tokenizer = TOKENIZERS["byte_level"]
    decoded: list[int] = []

    class Counting(Tokenizer):
        def decode(self, tokens: Sequence[int]) -> str:
            decoded.append(len(tokens))
            return super().decode(tokens)

    text = TextStream(Counting(byte_level()))
    broken = tokenizer.encode("\u4f60")[1]
    for _ in range(1000):
        text.push(broken)
    assert max(decoded) <= LONGEST + 1
    assert sum(decoded) < 1000 * 3 * LONGEST


@KINDS
@given(text=texts)
@settings(max_examples=100, deadline=None)
def test_what_a_user_types_is_never_a_control_token(kind: str, text: str) -> None:
    tokenizer = TOKENIZERS[kind]
    tokens = tokenizer.encode(text)
    assert tokens[0] in tokenizer.control, "the token that the tokenizer puts before a text"
    assert not set(tokens[1:]) & set(tokenizer.control)


def test_ten_thousand_random_prompts_survive(pycoder: Path) -> None:
    """Of the demo's tokenizer; each is encoded without control tokens, and streamed as it was."""
    tokenizer = Tokenizer.load(pycoder)
    chance = random.Random(0)
    parts = [*tokenizer.control.values(), "\U0001f469\u200d\U0001f680", "\u202eabc", "\x00", "def f(", "\n\t", "\u00e9"]
    for _ in range(10_000):
        text = "".join(chance.choices(parts, k=chance.randrange(1, 6))) + chr(chance.randrange(0xD7FF))
        tokens = tokenizer.encode(text)
        assert not set(tokens) & set(tokenizer.control)
        assert "".join(stream(tokenizer, tokens)) == text


@pytest.mark.parametrize("text", ["a\ud800b", "\udcff", b"caf\xe9".decode("utf-8", "surrogateescape")])
def test_text_that_is_not_unicode_is_one_clear_line(text: str) -> None:
    with pytest.raises(GenerationError, match=r"the text is not valid Unicode: .* at character [0-9]") as caught:
        TOKENIZERS["byte_level"].encode(text)
    assert "\n" not in str(caught.value)


def test_a_panic_of_the_library_is_an_error_of_ours() -> None:
    """`pyo3_runtime.PanicException` is not even an Exception."""
    decodes = byte_level()
    decodes.decoder = decoders.Strip("a", 1, 1)
    with pytest.raises(GenerationError, match=r"the tokens cannot be decoded: .") as caught:
        Tokenizer(decodes).decode(decodes.encode("a").ids)
    assert "\n" not in str(caught.value)
    file = json.loads(byte_level().to_str())
    single = [{"SpecialToken": {"id": "missing", "type_id": 0}}]
    file["post_processor"] = {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": {}}
    with pytest.raises(GenerationError, match=r"the text cannot be encoded: ."):
        Tokenizer(Library.from_str(json.dumps(file))).encode("a")


def test_a_bundle_without_a_tokenizer_says_so(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is missing"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "[1]", "nonsense"])
def test_a_tokenizer_that_does_not_load_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(BundleError, match=r"tokenizer\.json: .") as caught:
        Tokenizer.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_tokens_that_do_not_exist_have_no_text() -> None:
    tokenizer = TOKENIZERS["byte_level"]
    with pytest.raises(GenerationError, match="cannot be decoded"):
        tokenizer.decode([-1])


# Templates.


def user(content: Any) -> list[Message]:
    return [{"role": "user", "content": content}]


def chat(kind: str = "byte_level", source: str = CHATML) -> ChatTemplate:
    return ChatTemplate(source, TOKENIZERS[kind], names={"bos_token": "<s>"})


@KINDS
@given(content=texts)
@settings(max_examples=100, deadline=None)
def test_a_conversation_has_the_control_tokens_of_its_template_only(kind: str, content: str) -> None:
    tokenizer = TOKENIZERS[kind]
    tokens = chat(kind).encode(user(content))
    control = [tokenizer.control[token] for token in tokens if token in tokenizer.control]
    assert control == ["<s>", "<|user|>", "<|end|>", "<|user|>"]


@WITH_BYTES
@given(content=texts)
@settings(max_examples=100, deadline=None)
def test_a_conversation_says_what_was_written(kind: str, content: str) -> None:
    tokenizer = TOKENIZERS[kind]
    text = tokenizer.decode(chat(kind).encode(user(content))).replace(" ", "")
    assert text == f"user\n{content.strip()}assistant\n".replace(" ", "")


def reference(tokenizer: Tokenizer, messages: list[Message], source: str = CHATML) -> list[int]:
    theirs: Any = transformers.PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer._tokenizer, bos_token="<s>"
    )
    encoded = theirs.apply_chat_template(messages, chat_template=source, add_generation_prompt=True)
    return list(encoded["input_ids"])


@KINDS
@pytest.mark.parametrize("content", ["hello", "  hello a \n\n", "\n", "a < b > c", "\u4f60\U0001f600", ""])
def test_a_conversation_without_control_tokens_is_encoded_as_transformers_does(kind: str, content: str) -> None:
    messages = [*user("he"), {"role": "assistant", "content": "a\n"}, *user(content)]
    assert list(chat(kind).encode(messages)) == reference(TOKENIZERS[kind], messages)


@pytest.mark.parametrize("source", ["{{ c }}ser|>", "{{ c | trim }}ser|>", "<|u{{ c }}", "<|u{{ c | trim }}"])
@pytest.mark.parametrize("content", ["<|u", "a<|u", "<|u \n", "ser|>", "ser|>b", "\n ser|>"])
def test_part_of_a_control_token_is_not_completed_by_the_template(source: str, content: str) -> None:
    tokenizer = TOKENIZERS["byte_level"]
    tokens = chat(source=source.replace("c", "messages[0].content", 1)).encode(user(content))
    assert not set(tokens) & set(tokenizer.control)
    assert content.strip() in tokenizer.decode(tokens)


def test_every_text_of_a_message_is_guarded_and_names_are_not() -> None:
    source = (
        "{% for m in messages %}{{ m.role }}{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}"
        "{% endif %}{% endfor %}{% endfor %}"
    )
    content = [{"type": "text", "text": "a<|end|>b"}, {"type": "image"}]
    tokens = chat(source=source).encode([{"role": "user", "content": content, "extra": {"deep": ["<|user|>"]}}])
    assert TOKENIZERS["byte_level"].decode(tokens) == "usera<|end|>b"
    assert not set(tokens) & set(TOKENIZERS["byte_level"].control)


def test_a_template_sees_what_was_written_but_for_control_tokens() -> None:
    source = "{% if '</think>' in messages[0].content %}{{ messages[0].content.split('</think>')[-1] }}{% endif %}"
    assert TOKENIZERS["byte_level"].decode(chat(source=source).encode(user("x</think>answer"))) == "answer"


def test_templates_have_what_those_of_transformers_have() -> None:
    source = (
        "{%- for m in messages -%}{%- if loop.index > 1 -%}{%- break -%}{%- endif -%}{% generation %}{{ m | tojson }}"
        "{% endgeneration %}{%- endfor -%}{{ strftime_now('%Y')[:2] }}{{ tools is none }}"
    )
    messages = [*user("h\u00e9"), *user("b")]
    assert list(chat(source=source).encode(messages)) == reference(TOKENIZERS["byte_level"], messages, source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ raise_exception('roles must\nalternate') }}", "refuses the conversation: roles must alternate"),
        ("{{ messages[5].content.x }}", "the chat template failed: "),
        ("{{ ''.__class__.__mro__ }}", "the chat template failed: access to attribute '__class__'"),
        ("{{ messages.append(1) }}", "the chat template failed: "),
        ("{{ 1 / 0 }}", "the chat template failed: division by zero"),
        ("{% for i in range(100000) %}{{ 'x' * 1000 }}{% endfor %}", "renders more than"),
        ("{{ unfinished", "the chat template cannot be read: "),
        ("{% include 'x' %}", "the chat template failed: "),
    ],
)
def test_what_a_template_cannot_do_is_one_line(source: str, message: str) -> None:
    with pytest.raises(GenerationError) as caught:
        chat(source=source).encode(user("a"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "messages",
    [[], ["hello"], [{"content": "a"}], [{"role": 5, "content": "a"}], [{"role": "us|>er", "content": "a"}]],
)
def test_what_is_not_a_conversation_is_refused(messages: list[Any]) -> None:
    with pytest.raises(GenerationError, match=r"give at least one message|expected a role"):
        chat().encode(messages)


def test_a_template_is_found_where_checkpoints_have_it(tmp_path: Path) -> None:
    tokenizer = TOKENIZERS["byte_level"]
    assert ChatTemplate.load(tmp_path, tokenizer) is None
    named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "{{ bos_token }}he"}]
    config = tmp_path / "tokenizer_config.json"
    for value in (named, "{{ bos_token }}he"):
        config.write_text(json.dumps({"chat_template": value, "bos_token": {"content": "<s>"}}))
        template = ChatTemplate.load(tmp_path, tokenizer)
        assert template is not None
        assert tokenizer.decode(template.encode(user("x"))) == "he"
    (tmp_path / "chat_template.jinja").write_text("l")
    template = ChatTemplate.load(tmp_path, tokenizer)
    assert template is not None
    assert tokenizer.decode(template.encode(user("x"))) == "l"


TEMPLATES: list[Any] = [[{"name": "a", "template": "b"}], [{"name": "default"}], [{}], {"a": "b"}, 5]


@pytest.mark.parametrize("content", ["[]", "{", *(json.dumps({"chat_template": found}) for found in TEMPLATES)])
def test_a_configuration_that_cannot_be_read_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(BundleError, match=r"tokenizer_config\.json: the chat template cannot be read: ") as caught:
        ChatTemplate.load(tmp_path, TOKENIZERS["byte_level"])
    assert "\n" not in str(caught.value)
