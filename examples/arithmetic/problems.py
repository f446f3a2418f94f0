"""Sums of numbers and products, with the steps of working them out: "34+7*8+15" is "7*8=56", "34+15=49", "49+56=105".

Which step comes first is chosen at random, so that a model which learned them can come to an answer in many ways.
"""

import random
import zlib
from collections.abc import Iterator

TERMS = (3, 6)  # of a problem, both included
PRODUCTS = 0.3  # how many of the terms
HELD_OUT = 16  # one problem of so many is for tests, by its checksum


def problem(rng: random.Random) -> str:
    """Such as `34+7*8+15`."""
    return "+".join(_term(rng) for _ in range(rng.randint(*TERMS)))


def solution(text: str, rng: random.Random) -> str:
    """The steps of a problem, one to a line; the last number is the answer."""
    terms = text.split("+")
    lines = []
    while len(terms) > 1 or "*" in terms[0]:
        step = _step(terms, rng)
        lines.append(f"{step}={value(step)}")
        terms.append(str(value(step)))
    return "\n".join(lines)


def value(text: str) -> int:
    """What a problem comes to."""
    total = 0
    for term in text.split("+"):
        product = 1
        for factor in term.split("*"):
            product *= int(factor)
        total += product
    return total


def held_out(text: str) -> bool:
    """Whether a problem is for tests only."""
    return zlib.crc32(text.encode()) % HELD_OUT == 0


def problems(seed: int, *, tests: bool) -> Iterator[str]:
    """Problems without end: those for tests, or the others."""
    rng = random.Random(seed)
    while True:
        text = problem(rng)
        if held_out(text) == tests:
            yield text


def _term(rng: random.Random) -> str:
    if rng.random() < PRODUCTS:
        return f"{rng.randint(2, 9)}*{rng.randint(2, 9)}"
    return str(rng.randint(10, 99))


def _step(terms: list[str], rng: random.Random) -> str:
    """Takes what the next step is made of from the terms: a product, or two numbers."""
    products = [term for term in terms if "*" in term]
    if products:
        step = rng.choice(products)
        terms.remove(step)
        return step
    pair = rng.sample(range(len(terms)), 2)
    step = "+".join(terms[i] for i in pair)
    for i in sorted(pair, reverse=True):
        del terms[i]
    return step
