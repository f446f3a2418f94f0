"""sdk, quality: how long the greedy text of a model stays that of its reference.

The model writes, and the reference only reads: up to the first token that it would not have written itself, it would
have written the same. So one pass of the reference over the texts finds what generations of its own would.
"""

import numpy as np

from edgewise.quality.report import Greedy
from edgewise.quality.scorers import Lowered, Scorer
from edgewise.runtime.session import Session

PROMPTS = 8
PROMPT = 32  # tokens, the first of a sequence
TOKENS = 64  # that are written


def compare_greedy(model: Lowered, reference: Scorer, sequences: np.ndarray) -> Greedy | None:
    """Greedy texts that go on from the beginnings of some sequences; None where the context has no room for any."""
    if model.facts.source:
        return _compare_answers(model, reference, sequences)
    prompts = sequences[:PROMPTS, :PROMPT]
    length = prompts.shape[1]
    tokens = min(TOKENS, model.model.context - length)
    if tokens < 1:
        return None
    texts = np.stack([np.concatenate([prompt, _written(model, prompt, tokens)]) for prompt in prompts])
    tops = np.concatenate([chunk.argmax(axis=1) for chunk in reference.logits(texts)]).reshape(texts.shape)
    pairs = zip(texts[:, length:], tops[:, length - 1 : -1], strict=True)
    return Greedy(tokens, tuple(same_tokens(ours, theirs, model.facts.eos) for ours, theirs in pairs))


def _compare_answers(model: Lowered, reference: Scorer, sequences: np.ndarray) -> Greedy | None:
    """Greedy answers to sources as long as they are, which are halves of what the reference reads."""
    tokens = min(PROMPT, sequences.shape[1], model.model.context - 1)
    sources = sequences[:PROMPTS, :tokens]
    assert model.facts.source
    start = np.array([model.facts.source.start])
    made = [_written(Lowered(model.model.given(source.tolist())), start, tokens) for source in sources]
    texts = np.concatenate([sources, np.array(made, np.int64)], axis=1)
    tops = np.concatenate([chunk.argmax(axis=1) for chunk in reference.logits(texts)]).reshape(len(texts), -1)
    pairs = zip(texts[:, tokens:], tops[:, :-1], strict=True)
    return Greedy(tokens, tuple(same_tokens(ours, theirs, model.facts.eos) for ours, theirs in pairs))


def same_tokens(ours: np.ndarray, theirs: np.ndarray, eos: tuple[int, ...]) -> int:
    """Tokens until two texts differ; all of them where both end before they do."""
    differ = np.flatnonzero(ours != theirs)
    end = np.flatnonzero(np.isin(ours, eos))
    if not len(differ) or (len(end) and end[0] < differ[0]):
        return len(ours)
    return int(differ[0])


def _written(model: Lowered, prompt: np.ndarray, tokens: int) -> list[int]:
    session = Session(model.model, capacity=len(prompt) + tokens)
    written = [int(session.prefill(prompt.tolist())[0].argmax())]
    while len(written) < tokens:
        written.append(int(session.decode(written[-1])[0].argmax()))
    return written
