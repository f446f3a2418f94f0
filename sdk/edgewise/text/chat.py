"""sdk, text: chat templates: a conversation as the text that a model was trained on."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgewise.errors import BundleError, GenerationError
from edgewise.options import known
from edgewise.text.apart import render_apart
from edgewise.text.marks import Marks
from edgewise.text.template import render
from edgewise.text.tokenizer import Tokenizer

Message = Mapping[str, Any]  # {"role": "user", "content": "..."}, and whatever else the template reads

TEMPLATE = "chat_template.jinja"
CONFIG = "tokenizer_config.json"
ROLE = re.compile(r"[\w-]+")  # templates build control tokens from roles: they are names, not text


class ChatTemplate:
    """Turns a conversation into tokens, up to where the model's answer begins.

    A template is a program: unless it is trusted, it runs in a process of its own, bounded in time and memory.
    """

    def __init__(
        self, source: str, tokenizer: Tokenizer, *, names: Mapping[str, str] | None = None, trusted: bool = True
    ) -> None:
        self.source = source
        self._tokenizer = tokenizer
        self._names = dict(names or {})  # bos_token, eos_token ...: templates write them
        self._render = render if trusted else render_apart

    @classmethod
    def load(cls, folder: Path, tokenizer: Tokenizer, *, trusted: bool = True) -> "ChatTemplate | None":
        """The template of a bundle; None where there is none. Raises BundleError for one that cannot be read."""
        where, path = folder / CONFIG, folder / TEMPLATE
        try:
            config = _read_config(where)
            where = path if path.is_file() else where
            source = path.read_text("utf-8") if where == path else _source(config)
        except (OSError, ValueError, RecursionError) as error:
            raise BundleError(f"{where}: the chat template cannot be read: {error}") from error
        return None if source is None else cls(source, tokenizer, names=_names(config), trusted=trusted)

    def encode(self, messages: Sequence[Message], *, tools: Sequence[Mapping[str, Any]] = ()) -> tuple[int, ...]:
        """The tokens of a conversation. What looks like a control token in a message is text.

        tools: JSON schemas of functions that the model may call, for templates that speak of `tools`.

        Raises GenerationError for messages that are not a conversation, and for what the template refuses.
        """
        _check(messages)
        if tools and "tools" not in self.source:
            raise GenerationError("the chat template knows nothing of tools: the model was not trained to call any")
        marks = Marks(self._tokenizer.control.values(), avoid=(self.source, *self._names.values()))
        said, offered = marks.mark([list(messages), list(tools)])
        variables = {**self._names, "messages": said, "tools": offered or None, "documents": None}
        text = self._render(self.source, {**variables, "add_generation_prompt": True})
        return self._tokenizer.encode_rendered(text, marks.originals)


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
