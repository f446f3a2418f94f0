"""Perplexity of a long text in a window of attention sinks, and with the text before each token computed anew.

    python benchmarks/endless.py model.edge text.txt --context 512

The first is what `overflow="window"` gives for the price of a step; the second is what it is measured against.
"""

import argparse
from pathlib import Path

import numpy as np

from edgewise.runtime.runner import Runner
from edgewise.runtime.session import Session
from edgewise.runtime.window import Window
from edgewise.search.protocol import FloatArray

STRIDE = 64  # tokens that are scored after one text computed anew


def losses(scores: FloatArray, following: list[int]) -> list[float]:
    """In nats, of the tokens that follow. `scores` is `[tokens, vocabulary]`."""
    exact = scores.astype(np.float64)
    found: list[float] = (np.logaddexp.reduce(exact, axis=1) - exact[np.arange(len(exact)), following]).tolist()
    return found


def windowed(runner: Runner, tokens: list[int], begin: int, sinks: int) -> float:
    session = Session(runner.model, capacity=runner.model.context, window=Window(sinks=sinks))
    found = []
    for place, token in enumerate(tokens[:-1]):
        scores = session.decode(token)
        if place >= begin:
            found += losses(scores, [tokens[place + 1]])
    return float(np.exp(np.mean(found)))


def anew(runner: Runner, tokens: list[int], begin: int, before: int) -> float:
    """Each token after `before` others, or up to STRIDE more."""
    session = Session(runner.model, capacity=before + STRIDE)
    found = []
    for start in range(begin, len(tokens) - 1, STRIDE):
        following = tokens[start + 1 : start + 1 + STRIDE]
        session.rewind(0)
        scores = session.prefill(tokens[start - before + 1 : start + len(following)], scores=len(following))
        found += losses(scores, following)
    return float(np.exp(np.mean(found)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("text", type=Path)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=5000)
    options = parser.parse_args()
    with Runner.open(options.bundle, context=options.context) as runner:
        tokens = list(runner.tokenizer.encode(options.text.read_text("utf-8"))[: options.tokens])
        begin = 2 * options.context
        print(f"{len(tokens) - 1 - begin:,} tokens of {options.text.name} after the first {begin:,}: perplexity")
        for sinks in (0, 4):
            print(f"in a window of {options.context} with {sinks} sinks: {windowed(runner, tokens, begin, sinks):.3f}")
        for before in (options.context * 3 // 4, options.context - STRIDE):
            found = anew(runner, tokens, begin, before)
            print(f"after the {before} to {before + STRIDE - 1} before it, anew: {found:.3f}")


if __name__ == "__main__":
    main()
