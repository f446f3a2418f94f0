"""sdk, runtime: the scores of a classifier as labels with probabilities: of a text, or of stretches of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgewise.facts import EncoderFacts
from edgewise.text.tokenizer import Pieces

Floats = NDArray[np.float32]
OUTSIDE = "O"  # the label of what belongs to no stretch


@dataclass(frozen=True)
class Label:
    """A label, and how probable it is."""

    label: str
    probability: float


@dataclass(frozen=True)
class Span:
    """A stretch of a text, from character `start` to before `end`, with its label."""

    label: str
    probability: float
    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Classification:
    """What a classifier says of a text: all labels, the most probable first; or of which tokens it says what.

    `spans` are words of one kind put together: a word has the label of its first token, and `B-` begins another one.
    What has the label `O` is in none.
    """

    labels: tuple[Label, ...] = ()
    tokens: tuple[Span, ...] = ()
    spans: tuple[Span, ...] = ()


def probabilities(logits: Floats, facts: EncoderFacts) -> Floats:
    """Of each label, along the last axis."""
    if facts.scores == "none":
        return logits
    if facts.scores == "sigmoid":
        return (0.5 * (1 + np.tanh(logits / 2))).astype(np.float32)
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    found: Floats = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return found


def of_text(scores: Floats, facts: EncoderFacts) -> Classification:
    """The labels of a text, by their probabilities `[labels]`."""
    order = np.argsort(-scores, kind="stable")
    return Classification(labels=tuple(Label(facts.labels[number], float(scores[number])) for number in order))


def of_tokens(scores: Floats, pieces: Pieces, text: str, facts: EncoderFacts) -> Classification:
    """The labels of a text's tokens, by their probabilities `[sequence, labels]`."""
    tokens, words = list[Span](), list[Span]()
    word: int | None = None
    for row, (start, end), special, number in zip(scores, pieces.offsets, pieces.special, pieces.words, strict=False):
        if special:
            continue
        best = int(row.argmax())
        token = Span(facts.labels[best], float(row[best]), start, end, text[start:end])
        tokens.append(token)
        if words and number is not None and number == word:
            words[-1] = _until(words[-1], end, text)
        else:
            words.append(token)
        word = number
    return Classification(tokens=tuple(tokens), spans=tuple(_joined(words, text)))


def _joined(words: Sequence[Span], text: str) -> Iterator[Span]:
    """Neighbours of one kind as one, without those outside of all; the mean of their probabilities."""
    groups: list[list[Span]] = []
    for word in words:
        begins, kind = _kind(word.label)
        if groups and not begins and kind == _kind(groups[-1][0].label)[1]:
            groups[-1].append(word)
        else:
            groups.append([word])
    for group in groups:
        if group[0].label != OUTSIDE:
            start, end = group[0].start, group[-1].end
            mean = sum(word.probability for word in group) / len(group)
            yield Span(_kind(group[0].label)[1], mean, start, end, text[start:end])


def _kind(label: str) -> tuple[bool, str]:
    """Whether a label says that something begins, and of which kind it is: `B-PER` is a PER that begins."""
    return label.startswith("B-"), label[2:] if label.startswith(("B-", "I-")) else label


def _until(span: Span, end: int, text: str) -> Span:
    return Span(span.label, span.probability, span.start, end, text[span.start : end])
