"""sdk, runtime: a prompt as tokens, and the room that it leaves for an answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from operator import index

import numpy as np

from edgewise.errors import ContextOverflow, GenerationError
from edgewise.facts import Facts
from edgewise.runtime.model import Model
from edgewise.runtime.window import Window
from edgewise.text.tokenizer import Tokenizer

MAX_TOKENS = 256  # new tokens when the caller does not say, or what is left of the context
LONGEST_TOKEN = 1024  # characters; a text that no context could hold is refused before it is encoded


def encode(prompt: str | Sequence[int], tokenizer: Tokenizer, *, context: int | None) -> tuple[int, ...]:
    """The tokens of a prompt, of at least one. `context`: how many can be of use, where it matters."""
    if context is not None and isinstance(prompt, str) and len(prompt) > LONGEST_TOKEN * context:
        raise ContextOverflow(f"the prompt has {len(prompt):,} characters; the context is {context:,} tokens")
    if isinstance(prompt, bytes):
        raise GenerationError("the prompt is bytes; decode them to a text first")
    if not isinstance(prompt, str | Sequence | np.ndarray):
        raise GenerationError(f"the prompt is {prompt!r}; it must be a text, or a list of tokens")
    if len(prompt) == 0:
        raise GenerationError("the prompt is empty; give at least one character")
    tokens = tokenizer.encode(prompt) if isinstance(prompt, str) else whole(prompt)
    if not tokens:
        raise GenerationError("the prompt has no tokens: the tokenizer keeps nothing of it")
    return tokens


def whole(tokens: Sequence[int]) -> tuple[int, ...]:
    """Tokens as they are. Raises GenerationError for one that is not a whole number."""
    for token in tokens:
        if isinstance(token, bool) or not isinstance(token, Integral):
            raise GenerationError(f"token {token!r} is not a whole number; a token is one, from 0 on")
    return tuple(map(index, tokens))


@dataclass(frozen=True)
class Fitted:
    """A prompt within the context: the tokens that an answer comes after, and how many it can have."""

    tokens: tuple[int, ...]
    limit: int
    dropped: int = 0  # that the prompt lost
    source: tuple[int, ...] = ()  # the prompt of an encoder-decoder, which its encoder reads


def fit(
    prompt: str | Sequence[int], tokenizer: Tokenizer, model: Model, max_tokens: int | None, window: Window | None
) -> Fitted:
    """A prompt within the context. Raises GenerationError and ContextOverflow."""
    source: tuple[int, ...] = ()
    if model.facts.source:
        source = read_source(prompt, tokenizer, model.facts)
        prompt = (model.facts.source.start,)
    if window:
        tokens, dropped = window.cut(encode(prompt, tokenizer, context=None), model.context)
        return Fitted(tokens, MAX_TOKENS if max_tokens is None else max_tokens, dropped, source)
    tokens = encode(prompt, tokenizer, context=model.context)
    return Fitted(tokens, _limit(len(tokens), max_tokens, model), source=source)


def read_source(prompt: str | Sequence[int], tokenizer: Tokenizer, facts: Facts) -> tuple[int, ...]:
    """The tokens of a prompt that an encoder reads, as a whole. Raises as `fit`."""
    longest = facts.source.context_length if facts.source else 0
    tokens = encode(prompt, tokenizer, context=longest)
    if len(tokens) > longest:
        raise ContextOverflow(
            f"the prompt has {len(tokens):,} tokens, and the encoder of this model reads {longest:,} at most, "
            "as a whole: shorten it, or give it in parts"
        )
    if unknown := [token for token in tokens if not 0 <= token < facts.vocab_size]:
        raise GenerationError(f"token {unknown[0]} does not exist: the vocabulary has {facts.vocab_size}, from 0 on")
    return tokens


def _limit(prompt: int, max_tokens: int | None, model: Model) -> int:
    """New tokens at most. Raises ContextOverflow where more are asked for than the context has left."""
    context, longest = model.context, model.facts.context_length
    left = context - prompt
    more = f" (it can be opened with up to {longest:,})" if longest > context else ""
    if model.fixed:
        more = f" (the graphs of this bundle were compiled for {model.capacity:,}; more take a build with --context)"
    if left < 1:
        raise ContextOverflow(
            f"the prompt has {prompt:,} tokens, and the context is {context:,}{more}: nothing is left for an answer"
        )
    if max_tokens is not None and max_tokens > left:
        raise ContextOverflow(
            f"the prompt has {prompt:,} tokens; {max_tokens:,} new ones make {prompt + max_tokens:,}, "
            f"and the context is {context:,}{more}"
        )
    return min(MAX_TOKENS, left) if max_tokens is None else max_tokens
