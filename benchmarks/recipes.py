"""The recipes of smaller.py, in groups: each a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shapes import DEMO
from variants import Case, Steps

BATCH = 8  # sequences of 256 tokens in a step of learning
GPTQ = ("quantize", {"method": "gptq"})


@dataclass(frozen=True)
class Group:
    """Cases of one checkpoint that are looked at together."""

    title: str
    cases: tuple[Case, ...]


def groups(train: Path, steps: int, experts: Path | None) -> list[Group]:
    """All of them; those of mixtures where there is a checkpoint with experts."""
    dense = [PRUNED, distilled(train, steps), SPARSE, VOCABULARY, split(train, steps)]
    return [*dense, mixtures(experts)] if experts else dense


def learning(train: Path, steps: int, rate: float) -> tuple[str, Mapping[str, Any]]:
    """A step of a recipe in which the model learns from a text; the more was lost, the faster it may."""
    training = {"steps": steps, "rate": rate, "precision": "bfloat16", "batch": BATCH, "evaluate": max(1, steps // 4)}
    return "distill", {"text": str(train), "length": 256, "training": training}


def width(keep: float, **options: Any) -> tuple[str, Mapping[str, Any]]:
    return "prune-width", {"keep": keep, "multiple": 32, **options}


def hidden(**options: Any) -> tuple[str, Mapping[str, Any]]:
    return "prune-hidden", {"keep": 0.75, "multiple": 32, **options}


def budget(keep: float) -> tuple[str, Mapping[str, Any]]:
    return "prune", {"keep": keep, "multiple": 32}


def layers(keep: int) -> tuple[str, Mapping[str, Any]]:
    return "prune-layers", {"keep": keep}


CHECKPOINT = Case("the checkpoint", calibrated=False)

PRUNED = Group(
    "Pruned",
    (
        CHECKPOINT,
        Case("75 % of the neurons, cut", (width(0.75, refit=False),)),
        Case("75 % of the neurons", (width(0.75),)),
        Case("50 % of the neurons, cut", (width(0.5, refit=False),)),
        Case("50 % of the neurons", (width(0.5),)),
        Case("1 of 2 key-value heads", (("prune-heads", {"keep": 0.5}),)),
        Case("5 of 6 layers", (layers(5),)),
        Case("3 of 6 layers", (layers(3),)),
        Case("75 % of the channels", (hidden(),)),
        Case("75 % of the channels, turned", (hidden(method="slice"),)),
        Case("75 % by a budget", (budget(0.75),)),
        Case("50 % by a budget", (budget(0.5),)),
        Case("int4", (GPTQ,)),
        Case("50 % of the neurons, int4", (width(0.5), GPTQ)),
    ),
)

SPARSE = Group(
    "Sparse",
    (
        Case("50 % zeros, magnitude", (("sparsify", {"method": "magnitude", "sparsity": 0.5}),), calibrated=False),
        Case("2:4, sparsegpt", (("sparsify", {"method": "sparsegpt", "pattern": "2:4"}),)),
    ),
)

_TOKENS = ("prune-vocabulary", {"text": str(DEMO / "calibration.txt"), "multiple": 64})
VOCABULARY = Group(
    "Fewer tokens in the vocabulary",
    (
        Case("those of the calibration text", (_TOKENS,), calibrated=False),
        Case("those of the calibration text, int4", (_TOKENS, GPTQ)),
    ),
)


def distilled(train: Path, steps: int) -> Group:
    recipes: Mapping[str, Steps] = {
        "50 % of the neurons, distilled, int4": (width(0.5), learning(train, steps, 3e-4), GPTQ),
        "3 of 6 layers, distilled, int4": (layers(3), learning(train, steps, 1e-3), GPTQ),
    }
    return Group("Distilled", tuple(Case(name, recipe) for name, recipe in recipes.items()))


def split(train: Path, steps: int) -> Group:
    """Of the neurons of the dense model, the shared ones and as many of the others."""

    def active(few: int) -> tuple[str, Mapping[str, Any]]:
        return "dense-to-moe", {"experts": 8, "shared": few, "active": few}

    recipes: Mapping[str, Steps] = {
        "75 % of the neurons active": (active(3),),
        "50 % of the neurons active": (active(2),),
        "50 % of the neurons active, distilled": (active(2), learning(train, steps, 3e-4)),
    }
    return Group("Dense, as a mixture", tuple(Case(name, recipe) for name, recipe in recipes.items()))


def mixtures(experts: Path) -> Group:
    """Of a checkpoint with 8 experts, 2 of them active."""
    frequent, skipping = ("prune-experts", {"keep": 6, "worth": "frequency"}), ("skip-experts", {"max_mean_kld": 0.02})
    recipes: Mapping[str, Steps] = {
        "6 of 8 experts": (frequent,),
        "6 of 8 experts, merged": (("merge-experts", {"keep": 6}),),
        "skipped within 0.02": (skipping,),
        "6 of 8 experts, skipped, int4": (frequent, skipping, GPTQ),
    }
    one = Case("1 of 2 experts active", (("active-experts", {"active": 1}),), experts, calibrated=False)
    cases = tuple(Case(name, recipe, experts) for name, recipe in recipes.items())
    return Group("Mixtures of experts", (Case("the mixture", (), experts, calibrated=False), *cases, one))
