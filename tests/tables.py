"""tests: searches without a session: rows are texts, and a function of a text gives the scores of its next token."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewise.search.protocol import Context, Emit, Extend, FloatArray, LogProb, Reply, Search
from edgewise.search.protocol import Sequence as Found

Model = Callable[[tuple[int, ...]], FloatArray]  # the scores after a text, or the hidden state of its last token


class Texts:
    """Rows as a session would have them; holds a search to the protocol, and remembers how many rows it had at once."""

    def __init__(self, *models: Model, hidden: Model | None = None) -> None:
        self.models = models
        self.hidden = hidden
        self.rows: dict[tuple[int, int], tuple[int, ...]] = {}
        self.most = 0
        self.copies = 0

    def extend(self, extends: Sequence[Extend]) -> tuple[FloatArray, ...]:
        texts: dict[tuple[int, int], tuple[int, ...]] = {}
        for extend in extends:
            handle = (extend.model, extend.row)
            assert handle not in texts, "a row is extended twice in one request"
            parent = () if extend.parent is None else self.rows[extend.model, extend.parent]
            texts[handle] = parent[: None if extend.length < 0 else extend.length] + extend.tokens
            self.copies += extend.parent not in (None, extend.row)
        self.rows |= texts
        self.most = max(self.most, len(self.rows))
        return tuple(self._scores(extend) for extend in extends)

    def release(self, model: int, row: int) -> None:
        del self.rows[model, row]

    def states(self, extend: Extend) -> FloatArray:
        """Of the tokens that were appended, `[tokens, hidden]`."""
        assert self.hidden is not None, "the search asks for hidden states, and there are none"
        text = self.rows[extend.model, extend.row]
        ends = range(len(text) - len(extend.tokens) + 1, len(text) + 1)
        return np.array([self.hidden(text[:end]) for end in ends], np.float32)

    def _scores(self, extend: Extend) -> FloatArray:
        text = self.rows[extend.model, extend.row]
        ends = range(len(text) - extend.scores + 1, len(text) + 1)
        return np.array([self.models[extend.model](text[:end]) for end in ends], np.float32)


class Letters:
    """A vocabulary of the alphabet: token 0 is "a", and so on; token 26 is a space."""

    def __init__(self, eos: Sequence[int] = (), size: int = 27) -> None:
        self.eos = frozenset(eos)
        self.size = size

    def encode_control(self, text: str) -> tuple[int, ...]:
        return self.encode(text)

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(26 if letter == " " else ord(letter) - ord("a") for letter in text)

    encode_prompt = encode

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(" " if token == 26 else chr(ord("a") + token) for token in tokens)


def search(
    how: Search, texts: Texts, *, limit: int, prompt: tuple[int, ...] = (1, 2), eos: Sequence[int] = (), **more: Any
) -> tuple[Found, ...]:
    """What a search finds; what it emitted counts as found, and ends at the limit and before an end."""
    emitted: dict[int, list[tuple[int, LogProb | None]]] = {}
    ended: set[int] = set()
    flow = how.flow(Context(prompt, limit, frozenset(eos), **more))
    try:
        request = next(flow)
        while True:
            for place in request.release:
                texts.release(*place)
            for emit in request.emit:
                _take(emit, emitted.setdefault(emit.sequence, []), ended, limit, eos)
            logits = texts.extend(request.extend)
            hidden = tuple(map(texts.states, request.extend)) if request.hidden else None
            request = flow.send(Reply(logits, hidden, frozenset(ended)))
    except StopIteration as end:
        found: tuple[Found, ...] = end.value
    return found or tuple(_found(emitted[number]) for number in sorted(emitted))


def table(seed: int, vocabulary: int, scale: float = 2.0) -> Model:
    """Random scores that depend on the whole text."""

    def scores(text: tuple[int, ...]) -> FloatArray:
        random = np.random.default_rng([seed, *text])
        return random.normal(0, scale, vocabulary).astype(np.float32)

    return scores


def log_softmax(scores: NDArray[Any]) -> NDArray[np.float64]:
    shifted = scores.astype(np.float64) - scores.max()
    found: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return found


def _take(emit: Emit, taken: list[tuple[int, LogProb | None]], ended: set[int], limit: int, eos: Sequence[int]) -> None:
    for token, chosen in zip(emit.tokens, emit.logprobs or [None] * len(emit.tokens), strict=True):
        if emit.sequence not in ended:
            if token not in eos:
                taken.append((token, chosen))
            if token in eos or len(taken) == limit:
                ended.add(emit.sequence)


def _found(taken: list[tuple[int, LogProb | None]]) -> Found:
    return Found(tuple(token for token, _ in taken), logprobs=tuple(each for _, each in taken if each is not None))
