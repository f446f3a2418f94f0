"""Whether scores depend on how many tokens are computed at once: what speculation, chunks and batches rest on.

    edgewise build examples/pycoder -o /tmp/int4.edge
    python benchmarks/repeatable.py /tmp/int4.edge --docs docs/speculation.md

Computes one text in steps of 1, 2, 3, ... tokens, and compares scores with those of steps of 2: how many places have
the same bits, the largest difference, and in how many places another token has the highest score. Then counts texts
that come out otherwise with speculative decoding, greedy ones and sampled ones with the same seed.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from quantization import insert
from shapes import DEMO

from edgewise import Runner
from edgewise.search.protocol import FloatArray

MARK = "repeatable"
SIZES = (1, 3, 4, 8, 33, 64)
TEXTS, PROMPT, TOKENS = 48, 32, 40
SEQUENCE = 192  # tokens that are computed from an empty cache; scores of so many are held


def scores(runner: Runner, tokens: tuple[int, ...], size: int) -> FloatArray:
    """After each token, computed so many at a time."""
    session = runner.session(capacity=len(tokens))
    parts = (tokens[begin : begin + size] for begin in range(0, len(tokens), size))
    return np.concatenate([session.prefill(part, scores=len(part)).copy() for part in parts])


def rows(path: str, *, tokens: int, threads: int | None) -> Iterator[str]:
    with Runner.open(path, threads=threads) as runner:
        text = runner.tokenizer.encode((DEMO / "heldout.txt").read_text("utf-8"))[:tokens]
        found = {size: np.zeros(3) for size in SIZES}
        for begin in range(0, len(text) - SEQUENCE + 1, SEQUENCE):
            part = text[begin : begin + SEQUENCE]
            pairs = scores(runner, part, 2)
            for size in SIZES:
                others = scores(runner, part, size)
                same, other = (others == pairs).all(1), others.argmax(1) != pairs.argmax(1)
                found[size] += (same.sum(), other.sum(), 0)
                found[size][2] = max(found[size][2], np.abs(others - pairs).max())
        count = len(text) // SEQUENCE * SEQUENCE
        for size, (same, other, most) in found.items():
            yield f"| {Path(path).stem} | {size} | {same / count:.1%} | {most:.1g} | {other / count:.2%} |"


def others(path: str, *, threads: int | None) -> str:
    """Texts that speculation changes."""
    with Runner.open(path, threads=threads) as runner:
        text = runner.tokenizer.encode((DEMO / "heldout.txt").read_text("utf-8"))
        counts = []
        for search in ("greedy", "sample"):
            pairs = (
                [
                    runner.generate(text[PROMPT * i : PROMPT * (i + 1)], max_tokens=TOKENS, search=how, seed=i).tokens
                    for how in (search, {"name": "speculative", "search": search})
                ]
                for i in range(TEXTS)
            )
            counts.append(sum(alone != speculative for alone, speculative in pairs))
    return f"| {Path(path).stem} | {counts[0]} of {TEXTS} | {counts[1]} of {TEXTS} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", nargs="+")
    parser.add_argument("--tokens", type=int, default=3072)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--docs", type=Path, help="a page whose table is replaced")
    options = parser.parse_args()
    lines = [
        "| bundle | tokens in a step | same bits as in steps of 2 | largest difference | another token |",
        "|---|---:|---:|---:|---:|",
        *(row for path in options.bundle for row in rows(path, tokens=options.tokens, threads=options.threads)),
    ]
    lines += [
        "",
        f"Texts of {TOKENS} tokens that are others with speculation, by lookup:",
        "",
        "| bundle | greedy | sampled, with the same seed |",
        "|---|---:|---:|",
        *(others(path, threads=options.threads) for path in options.bundle),
    ]
    text = "\n".join(lines)
    print(text)
    if options.docs:
        insert(options.docs, text, MARK)


if __name__ == "__main__":
    main()
