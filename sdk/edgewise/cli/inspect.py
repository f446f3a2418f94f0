"""sdk, cli: `inspect`: what a bundle holds."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from edgewise.cli.output import json_option, size
from edgewise.facts import EncoderFacts, Facts

if TYPE_CHECKING:
    from edgewise.bundle.manifest import Manifest


@click.command()
@click.argument("bundle")
@json_option
def inspect(bundle: str, as_json: bool) -> None:
    """Show what a bundle holds: the model, how it was made, its files.

    JSON is the whole manifest.

    \b
    Example:
      edgewise inspect pycoder.edge
    """
    from edgewise.bundle.read import Bundle

    manifest = Bundle.open(bundle, verify=False).manifest
    if as_json:
        click.echo(manifest.write(), nl=False)
        return
    for key, value in _summary(manifest):
        click.echo(f"{key:<12}{value}")


def _summary(manifest: "Manifest") -> Iterator[tuple[str, str]]:
    facts = manifest.facts
    yield "model", f"{facts.model_type}, {facts.layers} layers of {facts.hidden_size}, vocabulary {facts.vocab_size:,}"
    yield "target", f"{manifest.target} ({', '.join(provider.name for provider in manifest.providers)})"
    yield from _card(manifest.card)
    yield from _encoder(facts) if isinstance(facts, EncoderFacts) else _context(manifest, facts)
    for number, step in enumerate(manifest.recipe, start=1):
        yield "recipe" if number == 1 else "", _step(step)
    yield "made by", ", ".join(f"{name} {version}" for name, version in sorted(manifest.versions.items()))
    for name, file in sorted(manifest.files.items()):
        yield "", f"{size(file.bytes):>10}  {name}"
    yield "in all", f"{size(sum(file.bytes for file in manifest.files.values())):>10}"


def _encoder(facts: EncoderFacts) -> Iterator[tuple[str, str]]:
    from edgewise.bundle.encoder_card import describe

    yield "task", facts.task
    yield "gives", describe(facts)
    yield "context", f"{facts.context_length:,} tokens"


def _context(manifest: "Manifest", facts: Facts) -> Iterator[tuple[str, str]]:
    from edgewise.rings import describe

    cache = size(facts.cache_bytes(manifest.context))
    if facts.source:
        yield "source", f"an encoder of {facts.source.layers} layers reads {facts.source.context_length:,} tokens"
    if manifest.hidden_states:
        yield "outputs", "logits, and hidden states"
    yield "context", f"{manifest.context:,} tokens ({cache} of cache); the model's limit is {facts.context_length:,}"
    if fixed := manifest.cache.capacity:
        lengths = f"{manifest.cache.prefill:,} tokens of a prompt at a time, or one, in a cache of {fixed:,}"
        yield "lengths", f"fixed: {lengths}"
        if any(attention.ring for attention in facts.attention):
            yield "", describe(facts, fixed)


def _card(card: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    from edgewise import placement

    if "parameters" in card:
        before, after = size(card["bytes"]["before"]), size(card["bytes"]["after"])
        yield "size", f"{card['parameters']:,} parameters: {before} in the checkpoint, {after} here"
    if "prefill_bytes" in card:
        yield "prefill", f"{size(card['prefill_bytes'])} more: a second graph, for long prompts"
    for name, kind in card.get("activations", {}).items():
        yield "activations", f"{name}: {kind}"
    if "placement" in card:
        yield from (("placement", line) for line in placement.describe(card["placement"]))
    if "quality" in card:
        found = card["quality"]
        if "mean_kld" not in found:
            yield from _likeness(found)
            return
        distance = f"mean KL divergence {found['mean_kld']:.4g}, p99 {found['p99_kld']:.4g}, top-1 {found['top1']:.1%}"
        yield "quality", f"{distance} ({found['tokens']:,} tokens of {found['text']})"
    if "speed" in card:
        speed = card["speed"]
        rates = f"decode {speed['decode_tokens_per_s']:,}, prefill {speed['prefill_tokens_per_s']:,} tokens/s"
        yield "speed", f"{rates} ({speed['processor']}, {speed['threads']} threads)"


def _likeness(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    from edgewise.bundle.encoder_card import figures

    for number, line in enumerate(figures(found)):
        yield "" if number else "quality", line
    yield "", f"({found['texts']:,} texts of {found['text']})"


def _step(step: Mapping[str, Any]) -> str:
    options = [f"{key}={value}" for key, value in step.items() if key != "pass"]
    return " ".join([step["pass"], *options])
