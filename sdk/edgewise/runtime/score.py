"""sdk, runtime: how probable a model holds texts that are given."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgewise.errors import ContextOverflow, GenerationError, OptionError
from edgewise.runtime.model import Model
from edgewise.runtime.session import Session
from edgewise.search.logprobs import logprob
from edgewise.search.protocol import LogProb

Tokens = Sequence[int]

CHUNK = 512  # positions that are scored at once, or fewer:
SCORES = 2**26  # bytes of their scores


@dataclass(frozen=True)
class Score:
    """How probable a text is after a prompt: log Pr(text | prompt) by the chain rule, in nats."""

    logprobs: tuple[LogProb, ...]  # of each token of the text

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(each.token for each in self.logprobs)

    @property
    def total(self) -> float:
        """The log-probability of the text."""
        return math.fsum(each.logprob for each in self.logprobs)

    @property
    def perplexity(self) -> float:
        """exp(-total / tokens)."""
        return math.exp(-self.total / len(self.logprobs))


def score(model: Model, prompt: Tokens, texts: Sequence[Tokens], *, top: int = 0) -> tuple[Score, ...]:
    """The scores of texts after one prompt, which is computed once.

    Without a prompt, a text's first token is its prompt: that follows nothing, and has no score.
    """
    if top < 0:
        raise OptionError(f"top is {top}; it must be 0 or above")
    pairs = [(tuple(prompt), tuple(text)) if prompt else (tuple(text[:1]), tuple(text[1:])) for text in texts]
    for before, text in pairs:
        if not text:
            raise GenerationError(
                "there is nothing to score: a text has no token" + ("" if prompt else " but its first")
            )
        if unknown := [token for token in text if not 0 <= token < model.facts.vocab_size]:
            raise GenerationError(
                f"token {unknown[0]} does not exist: the vocabulary has {model.facts.vocab_size}, from 0 on"
            )
        if len(before) + len(text) > model.context:
            raise ContextOverflow(
                f"the prompt has {len(before):,} tokens and the text {len(text):,}; the context is {model.context:,}"
            )
    session = Session(model, capacity=max((len(before) + len(text) for before, text in pairs), default=1))
    return tuple(Score(tuple(_logprobs(session, *pair, top))) for pair in pairs)


def _logprobs(session: Session, prompt: Tokens, text: Tokens, top: int) -> Iterator[LogProb]:
    """Chunk by chunk: the scores after a token are those of the next one."""
    known = len(prompt) - 1
    if session.tokens[:known].tolist() == list(prompt[:known]):
        session.rewind(known)
    else:
        session.rewind(0)
        session.prefill(prompt[:known])
    given = (*prompt[known:], *text[:-1])
    size = max(16, min(CHUNK, SCORES // (4 * session.model.facts.vocab_size)))
    for begin in range(0, len(given), size):
        part = given[begin : begin + size]
        for row, token in zip(session.prefill(part, scores=len(part)), text[begin:], strict=False):
            yield logprob(row, token, top)
