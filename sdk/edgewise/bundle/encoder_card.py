"""sdk, bundle: what the model card says of an encoder: who runs it, how it makes vectors or labels, how close it is."""

from collections.abc import Mapping
from typing import Any

from edgewise.bundle.manifest import Manifest
from edgewise.facts import EncoderFacts

LABELS = 8  # that a card lists


def lines(said: Manifest, facts: EncoderFacts) -> list[str]:
    """Who runs it, and what it is."""
    command = "embed" if facts.task == "feature-extraction" else "classify"
    sizes = f"- {facts.layers} layers, hidden size {facts.hidden_size:,}, vocabulary {facts.vocab_size:,}."
    return [
        f"Made by edgewise {said.edgewise}. `edgewise {command} . TEXT` runs it.",
        "",
        f"- Texts of up to {facts.context_length:,} tokens; of longer ones, the end is not read.",
        f"- {describe(facts)}.",
        sizes,
    ]


def describe(facts: EncoderFacts) -> str:
    """What it gives for a text."""
    if facts.task == "feature-extraction":
        pooled = {
            "mean": "the mean of its tokens",
            "cls": "its first token",
            "last": "its last token",
            None: "as its graph gives it",
        }
        length = ", of length 1" if facts.normalized else ""
        asked = f"; prompts: {', '.join(sorted(facts.prompts))}" if facts.prompts else ""
        return f"A vector for each text: {pooled[facts.pooling]}{length}{asked}"
    more = f" and {len(facts.labels) - LABELS} more" if len(facts.labels) > LABELS else ""
    each = {"softmax": "one of", "sigmoid": "any of", "none": "a score for each of"}[facts.scores]
    what = "each token" if facts.task == "token-classification" else "each text"
    return f"For {what} {each} {len(facts.labels)} labels: {', '.join(facts.labels[:LABELS])}{more}"


def quality(found: Mapping[str, Any]) -> list[str]:
    """How close it is to its checkpoint."""
    head = [
        "## Quality",
        "",
        f"On {found['texts']:,} texts of {found['text']}, against the checkpoint in float32:",
        "",
    ]
    return [*head, *(f"- {line}" for line in figures(found)), ""]


def figures(found: Mapping[str, Any]) -> list[str]:
    """The figures of a comparison, as people read them."""
    if "mean_cosine" in found:
        return [
            f"cosine to the float vectors {found['mean_cosine']:.5f} in the mean, {found['least_cosine']:.5f} at least",
            f"rank correlation (Spearman) of the likeness of {found['pairs']:,} pairs {found['spearman']:.5f}",
            f"the same nearest text for {found['same_nearest']:.1%}",
        ]
    top1 = found["top1"]
    what = "scores" if top1 is None else "probabilities"
    same = [] if top1 is None else [f"the same most probable label for {top1:.2%} of {found['rows']:,}"]
    return [
        *same,
        f"{what} differ by {found['probability_difference']:.4f} in the mean of the largest of each, "
        f"by {found['largest_difference']:.4f} at most",
    ]
