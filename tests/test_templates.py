"""tests: chat templates: control tokens that a user cannot forge, in a sandbox, encoded as transformers does."""

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from hypothesis import given, settings

from edgewise.errors import BundleError, GenerationError
from edgewise.text.chat import ChatTemplate, Message
from edgewise.text.tokenizer import Tokenizer
from toy_tokenizers import KINDS, TOKENIZERS, WITH_BYTES, texts

CHATML = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|user|>' + message.role + '\n' + message.content | trim + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}<|user|>assistant\n{% endif %}"
)
TEMPLATES: list[Any] = [[{"name": "a", "template": "b"}], [{"name": "default"}], [{}], {"a": "b"}, 5]


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


@pytest.mark.parametrize("content", ["[]", "{", *(json.dumps({"chat_template": found}) for found in TEMPLATES)])
def test_a_configuration_that_cannot_be_read_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(BundleError, match=r"tokenizer_config\.json: the chat template cannot be read: ") as caught:
        ChatTemplate.load(tmp_path, TOKENIZERS["byte_level"])
    assert "\n" not in str(caught.value)
