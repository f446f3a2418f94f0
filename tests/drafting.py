"""tests: toy models that drafts are made with."""

import numpy as np

from tables import Model, table


def chain(seed: int, scale: float = 3.0, vocabulary: int = 12) -> Model:
    """Scores that depend on the last token alone: texts repeat themselves, so that lookup has something to find."""
    scores = np.random.default_rng(seed).normal(0, scale, (vocabulary, vocabulary)).astype(np.float32)
    return lambda text: scores[text[-1]].copy()


def near(model: Model, noise: float) -> Model:
    """A model that mostly agrees with another."""
    return lambda text: model(text) + table(9, len(model(text)), noise)(text)
