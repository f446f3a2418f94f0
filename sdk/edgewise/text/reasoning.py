"""sdk, text: what a model thinks before it answers, apart from the answer."""

from collections.abc import Iterable
from dataclasses import dataclass

from edgewise.text.overlap import overlap


@dataclass(frozen=True)
class Tags:
    """The texts around a thought."""

    open: str = "<think>"
    close: str = "</think>"


@dataclass(frozen=True)
class Span:
    """A piece of text that is all thought, or all answer."""

    text: str
    thought: bool


TAGS = (Tags(), Tags("<thinking>", "</thinking>"), Tags("<|START_THINKING|>", "<|END_THINKING|>"))
TAG_TEXTS = frozenset(text for tags in TAGS for text in (tags.open, tags.close))


def tags_of(template: str) -> Tags | None:
    """The tags that a chat template speaks of; None for a model that does not think aloud."""
    return next((tags for tags in TAGS if tags.close in template), None)


class Spans:
    """Sorts text into thought and answer as it comes; the tags are in neither.

    Without tags, all is answer. `thinking`: whether a thought is under way where the text begins, because the template
    has opened one.
    """

    def __init__(self, tags: Tags | None = None, *, thinking: bool = False) -> None:
        self._tags = tags
        self._thinking = thinking
        self._held = ""  # may be the beginning of a tag

    def push(self, text: str) -> list[Span]:
        """What is certain with this text."""
        if self._tags is None:
            return [Span(text, False)] if text else []
        found, rest = [], self._held + text
        while (place := rest.find(tag := self._tags.close if self._thinking else self._tags.open)) >= 0:
            found.append(Span(rest[:place], self._thinking))
            rest = rest[place + len(tag) :]
            self._thinking = not self._thinking
        kept = len(rest) - overlap(rest, tag)
        self._held = rest[kept:]
        return [span for span in (*found, Span(rest[:kept], self._thinking)) if span.text]

    def flush(self) -> list[Span]:
        """What was held back, at the end of the text."""
        held, self._held = self._held, ""
        return [Span(held, self._thinking)] if held else []


def joined(spans: Iterable[Span]) -> tuple[str, str]:
    """The thoughts, and the answer; space around them is dropped where there is a thought."""
    found = list(spans)
    thought, answer = ("".join(span.text for span in found if span.thought is kind) for kind in (True, False))
    return (thought.strip(), answer.strip()) if thought else ("", answer)


def thinks_at_end(prompt: str, tags: Tags) -> bool:
    """Whether a prompt ends within a thought."""
    return prompt.rfind(tags.open) > prompt.rfind(tags.close)
