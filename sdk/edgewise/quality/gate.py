"""sdk, quality: a gate: what a bundle must reach on its quality text; the `[gate]` table of a recipe."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgewise.errors import OptionError, RecipeError
from edgewise.options import check, known, record

if TYPE_CHECKING:
    from edgewise.quality.likeness import Likeness
    from edgewise.quality.report import Distance

# Of each limit: what it is called, and the figure that it is held against.
FIGURES = {
    "max_mean_kld": ("mean KL divergence", "mean_kld"),
    "max_p99_kld": ("p99 of the KL divergence", "p99_kld"),
    "min_top1": ("top-1 agreement", "top1"),
    "max_perplexity_ratio": ("perplexity ratio", "perplexity_ratio"),
    "min_cosine": ("mean cosine", "mean_cosine"),
    "min_spearman": ("rank correlation", "spearman"),
    "max_probability_difference": ("mean difference of probabilities", "probability_difference"),
}
LABELS = frozenset({"min_top1", "max_probability_difference"})
BY_TASK = {  # which limits make sense; others have those of text
    "feature-extraction": frozenset({"min_cosine", "min_spearman"}),
    "text-classification": LABELS,
    "token-classification": LABELS,
}
OF_TEXT = frozenset({"max_mean_kld", "max_p99_kld", "min_top1", "max_perplexity_ratio"})
SHARES = {"min_top1": 0, "max_probability_difference": 0, "min_cosine": -1, "min_spearman": -1}  # up to 1, from here on


@dataclass(frozen=True)
class Gate:
    """Limits for a bundle's distance from its float model; a build that exceeds one of them fails.

    [gate]
    max_mean_kld = 0.03   # nats per token
    max_p99_kld = 0.3
    min_top1 = 0.9        # share of positions with the same most likely token; of texts with the same label
    max_perplexity_ratio = 1.05

    of models that embed texts, or label them:

    [gate]
    min_cosine = 0.99     # of a text's vector to that in floats, in the mean
    min_spearman = 0.98   # rank correlation of the likeness of pairs of texts
    max_probability_difference = 0.05
    """

    max_mean_kld: float | None = None
    max_p99_kld: float | None = None
    min_top1: float | None = None
    max_perplexity_ratio: float | None = None
    min_cosine: float | None = None
    min_spearman: float | None = None
    max_probability_difference: float | None = None

    def __post_init__(self) -> None:
        check(self)
        limits = record(self)
        for key, limit in limits.items():
            if key not in SHARES and not 0 <= limit < math.inf:
                raise OptionError(f"{key} is {limit}; it must be 0 or above")
            if key in SHARES and not SHARES[key] <= limit <= 1:
                raise OptionError(f"{key} is {limit:g}; it is a share, from {SHARES[key]} to 1")
        if not limits:
            raise OptionError("it sets no limit; for example: max_mean_kld = 0.03")

    def refuse_other(self, task: str) -> None:
        """Raises RecipeError for a limit that means nothing for a model of that task."""
        allowed = BY_TASK.get(task, OF_TEXT)
        if others := set(record(self)) - allowed:
            raise RecipeError(f"gate: {min(others)} means nothing for {task}; it has {known(allowed)}")

    def failures(self, found: "Distance | Likeness") -> list[str]:
        """What is not good enough, as one would say it; nothing where all of it is."""
        failed = []
        for key, limit in record(self).items():
            name, figure = FIGURES[key]
            value, least = getattr(found, figure), key.startswith("min_")
            if value is None:
                failed.append(f"{name} is nothing that a regression has; take {key} out of the gate")
            elif not (value >= limit if least else value <= limit):
                failed.append(
                    f"{name} is {value:.4g}, and {limit:g} is the {'least' if least else 'most'} that the gate allows"
                )
        return failed
