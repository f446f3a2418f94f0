"""sdk, text: a tokenizer as searches, processors and stop rules see it."""

from collections.abc import Sequence

from edgewise.text.tokenizer import Tokenizer


class TokenizerVocabulary:
    """The tokens of a bundle: `size` of them are scored by its model (often more than the tokenizer has)."""

    def __init__(self, tokenizer: Tokenizer, size: int, *, eos: frozenset[int] = frozenset()) -> None:
        self.tokenizer = tokenizer
        self.size = size
        self.eos = eos

    def encode(self, text: str) -> tuple[int, ...]:
        return self.tokenizer.encode_within(text)

    def encode_prompt(self, text: str) -> tuple[int, ...]:
        return self.tokenizer.encode(text)

    def encode_control(self, text: str) -> tuple[int, ...]:
        return self.tokenizer.encode_rendered(text, {})

    def decode(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode(tokens)
