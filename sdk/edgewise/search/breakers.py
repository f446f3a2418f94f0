"""sdk, search: texts at which a repetition ends, found as tokens come."""

from edgewise.search.protocol import Vocabulary


class Breakers:
    """Finds texts in tokens, also where several spell one. What a token says is asked once."""

    def __init__(self, texts: tuple[str, ...], vocabulary: Vocabulary) -> None:
        self._texts = texts
        self._overlap = max(map(len, texts), default=1) - 1  # characters of one that may be in earlier tokens
        self._vocabulary = vocabulary
        self._spelled: dict[int, str] = {}

    def holds_one(self, token: int) -> bool:
        """Whether a token alone has one in it."""
        spelled = self._spell(token)
        return any(text in spelled for text in self._texts)

    def follow(self, tail: str, token: int) -> tuple[bool, str]:
        """Whether one ends in this token, after the end of the text before it; and the end of the text then."""
        joined = tail + self._spell(token)
        found = any(joined.find(text, max(0, len(tail) - len(text) + 1)) >= 0 for text in self._texts)
        return found, joined[len(joined) - self._overlap :] if self._overlap else ""

    def _spell(self, token: int) -> str:
        if token not in self._spelled:
            self._spelled[token] = self._vocabulary.decode((token,))
        return self._spelled[token]
