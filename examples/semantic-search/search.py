"""examples: searches a small collection of passages by what they mean: `python search.py BUNDLE "a question" ...`."""

import sys
from pathlib import Path

import numpy as np

from edgewise import Encoder

PASSAGES = Path(__file__).with_name("passages.txt")
BEST = 3


def search(encoder: Encoder, passages: list[str], queries: list[str], *, best: int = BEST) -> list[list[int]]:
    """For each query the numbers of the passages that are nearest to it, the nearest first."""
    likeness = encoder.embed(queries) @ encoder.embed(passages).T  # [queries, passages]: cosines, as lengths are 1
    return [list(map(int, row)) for row in np.argsort(-likeness, axis=1)[:, :best]]


def main() -> None:
    _, bundle, *queries = sys.argv
    passages = PASSAGES.read_text("utf-8").removesuffix("\n").split("\n")
    with Encoder.open(bundle) as encoder:
        for query, found in zip(queries, search(encoder, passages, queries), strict=True):
            print(query)
            for number in found:
                print(f"  {passages[number]}")


if __name__ == "__main__":
    main()
