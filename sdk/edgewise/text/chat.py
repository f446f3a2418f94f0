"""sdk, text: chat templates: a conversation as the text that a model was trained on.

A template is a program that came with a checkpoint: it runs in jinja2's sandbox, which keeps it from doing anything
but rendering. Time and memory of a rendering are not bounded in this process; its output is.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewise.errors import BundleError, GenerationError
from edgewise.options import known
from edgewise.text.marks import Marks
from edgewise.text.template import compile_template
from edgewise.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import jinja2

Message = Mapping[str, Any]  # {"role": "user", "content": "..."}, and whatever else the template reads

TEMPLATE = "chat_template.jinja"
CONFIG = "tokenizer_config.json"
LIMIT = 16 << 20  # characters that a template may render
ROLE = re.compile(r"[\w-]+")  # templates build control tokens from roles: they are names, not text


class ChatTemplate:
    """Turns a conversation into tokens, up to where the model's answer begins."""

    def __init__(self, source: str, tokenizer: Tokenizer, *, names: Mapping[str, str] | None = None) -> None:
        self._source = source
        self._tokenizer = tokenizer
        self._names = dict(names or {})  # bos_token, eos_token ...: templates write them

    @classmethod
    def load(cls, folder: Path, tokenizer: Tokenizer) -> "ChatTemplate | None":
        """The template of a bundle; None where there is none. Raises BundleError for one that cannot be read."""
        where, path = folder / CONFIG, folder / TEMPLATE
        try:
            config = _read_config(where)
            where = path if path.is_file() else where
            source = path.read_text("utf-8") if where == path else _source(config)
        except (OSError, ValueError, RecursionError) as error:
            raise BundleError(f"{where}: the chat template cannot be read: {error}") from error
        return None if source is None else cls(source, tokenizer, names=_names(config))

    def encode(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """The tokens of a conversation. What looks like a control token in a message is text.

        Raises GenerationError for messages that are not a conversation, and for what the template refuses.
        """
        _check(messages)
        marks = Marks(self._tokenizer.control.values(), avoid=(self._source, *self._names.values()))
        text = self._render(marks.mark(list(messages)))
        return self._tokenizer.encode_rendered(text, marks.originals)

    @cached_property
    def _template(self) -> "jinja2.Template":
        return compile_template(self._source)

    def _render(self, messages: Any) -> str:
        variables = {"tools": None, "documents": None, **self._names, "messages": messages}
        pieces, length = [], 0
        try:
            for piece in self._template.generate(variables, add_generation_prompt=True):
                length += len(piece)
                if length > LIMIT:
                    raise GenerationError(f"the chat template renders more than {LIMIT} characters")
                pieces.append(piece)
        except GenerationError:
            raise
        except Exception as error:  # a template is a program: it can fail in any way
            raise GenerationError(f"the chat template failed: {' '.join(str(error).split())}") from error
        return "".join(pieces)


def _check(messages: Sequence[Message]) -> None:
    if not messages:
        raise GenerationError("the conversation is empty; give at least one message")
    for number, message in enumerate(messages, start=1):
        role = message.get("role") if isinstance(message, Mapping) else None
        if not isinstance(role, str) or not ROLE.fullmatch(role):
            raise GenerationError(f"message {number}: expected a role such as 'user' and a content, got {message!r}")


def _read_config(path: Path) -> dict[str, Any]:
    config = json.loads(path.read_bytes()) if path.is_file() else {}
    if not isinstance(config, dict):
        raise ValueError("expected a table")
    return config


def _source(config: Mapping[str, Any]) -> str | None:
    """The template in a tokenizer's configuration: a text, or several by name."""
    found = config.get("chat_template")
    if found is None or isinstance(found, str):
        return found
    entries = [entry for entry in found if isinstance(entry, Mapping)] if isinstance(found, list) else []
    named = {entry.get("name"): entry.get("template") for entry in entries}
    if not isinstance(named.get("default"), str):
        raise ValueError(f"none is named 'default'; known: {known(map(str, named))}")
    return str(named["default"])


def _names(config: Mapping[str, Any]) -> dict[str, str]:
    """The special tokens by the names that templates use: a text, or a table with its text."""
    found = {}
    for key, value in config.items():
        content = value.get("content") if isinstance(value, Mapping) else value
        if key.endswith("_token") and isinstance(content, str):
            found[key] = content
    return found
