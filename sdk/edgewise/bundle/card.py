"""sdk, bundle: the model card: what was built, from what, how large and how fast; data for programs, and README.md."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from edgewise import ahead, parity, placement
from edgewise.bundle import encoder_card
from edgewise.bundle.genai import runs
from edgewise.bundle.manifest import Cache, Manifest
from edgewise.facts import EncoderFacts, Facts
from edgewise.plan import Plan


def card(plan: Plan) -> dict[str, Any]:
    """The card as data, for the manifest."""
    return {
        "parameters": plan.total.parameters,
        "bytes": {"before": plan.total.before, "after": plan.total.after},
        "parts": {
            name: {"parameters": part.parameters, "before": part.before, "after": part.after}
            for name, part in plan.parts.items()
        },
        "cache_bytes": plan.cache,
        **({"prefill_bytes": plan.prefill} if plan.prefill else {}),
        **({"remarks": list(plan.remarks)} if plan.remarks else {}),
        "predicted": _predicted(plan),
    }


def _predicted(plan: Plan) -> dict[str, Any]:
    """What the plan expects of it on the device: memory, and speed where the profile has figures."""
    expected: dict[str, Any] = {"memory_bytes": plan.run_memory}
    if speed := plan.speed:
        expected |= {
            "prompt_tokens": speed.prompt,
            "first_token_s": float(f"{speed.first_token_s:.3g}"),
            "decode_tokens_per_s": float(f"{speed.decode_tokens_per_s:.3g}"),
        }
    return expected


def readme(said: Manifest) -> str:
    """The card as Markdown, for people."""
    data = said.card
    lines = [
        *_head(said),
        "",
        *_size(data, said.cache),
        "",
        *_prediction(data, said.target),
        *_section("Placement", placement.describe(data["placement"]) if "placement" in data else []),
        *_section("Compiled", ahead.describe(data["compiled"]) if "compiled" in data else []),
        *_section("Parity", parity.describe(data["parity"]) if "parity" in data else []),
        *_activations(data),
        *_quality(data),
        *_speed(data),
        *_section("Remarks", data.get("remarks", [])),
        "## Recipe",
        "",
        *([_step(step) for step in said.recipe] or ["Nothing was done to the weights."]),
        "",
        *_section("Versions", [f"{name} {version}" for name, version in sorted(said.versions.items())]),
    ]
    return "\n".join(lines)


def _head(said: Manifest) -> list[str]:
    """What it is, who runs it, and how large the model is."""
    facts, parameters = said.facts, _millions(said.card["parameters"])
    return [
        "---",
        "library_name: edgewise",
        f"pipeline_tag: {facts.task}",
        "---",
        "",
        f"# {facts.model_type}, {parameters} parameters, for {said.target}",
        "",
        *(encoder_card.lines(said, facts) if isinstance(facts, EncoderFacts) else _decoder(said, facts)),
    ]


def _decoder(said: Manifest, facts: Facts) -> list[str]:
    """Who runs it, its context and its sizes."""
    context = said.context
    return [
        f"Made by edgewise {said.edgewise}. `edgewise run . PROMPT` runs it{_others(facts, said.cache)}.",
        "",
        f"- Context: {facts.context_length:,} tokens; a session gets {context:,} unless it asks for another number,",
        f"  with {_megabytes(said.card['cache_bytes'])} of keys and values in {facts.attention[0].cache}.",
        f"- {facts.layers} layers, hidden size {facts.hidden_size:,}, vocabulary {facts.vocab_size:,}.",
        *_source(facts),
        *_experts(facts),
    ]


def _size(data: Mapping[str, Any], cache: Cache) -> list[str]:
    """Each part of the model, in the checkpoint and here."""
    return [
        "## Size",
        "",
        "| part | parameters | checkpoint | bundle |",
        "|---|---:|---:|---:|",
        *(_row(name, part["parameters"], part["before"], part["after"]) for name, part in data["parts"].items()),
        _row("all", data["parameters"], data["bytes"]["before"], data["bytes"]["after"]),
        *_prefill(data, cache),
    ]


def _prediction(data: Mapping[str, Any], target: str) -> list[str]:
    """What to expect on the device."""
    expected = data["predicted"]
    lines = [f"{_megabytes(expected['memory_bytes'])} of memory with a full context"]
    if "first_token_s" in expected:
        lines.append(f"{expected['first_token_s']:g} s to the first token after {expected['prompt_tokens']:,}")
        lines.append(f"then {expected['decode_tokens_per_s']:g} tokens/s")
    return _section(f"Predicted for {target}", lines)


def _others(facts: Facts, cache: Cache) -> str:
    """Who else loads it: they keep a shared cache, and transformers.js allocates one of floats."""
    if not cache.shared or not runs(facts):
        return ""
    if facts.attention[0].cache == "int8":
        return ", and onnxruntime-genai loads it as it is"
    return ", and onnxruntime-genai and transformers.js load it as it is"


def _source(facts: Facts) -> list[str]:
    """What reads the prompts of an encoder-decoder."""
    if facts.source is None:
        return []
    return [
        f"- An encoder of {facts.source.layers} layers reads prompts of up to {facts.source.context_length:,} tokens."
    ]


def _experts(facts: Facts) -> list[str]:
    """How much of a mixture of experts is at work at a time."""
    if not any(facts.experts):
        return []
    count = sum(mixture.count for mixture in facts.experts if mixture)
    return [f"- {count:,} experts in {sum(map(bool, facts.experts))} layers; a token uses {facts.active_experts:.1%}."]


def _row(name: str, parameters: int, before: int, after: int) -> str:
    return f"| {name} | {parameters:,} | {_megabytes(before)} | {_megabytes(after)} |"


def _prefill(data: Mapping[str, Any], cache: Cache) -> list[str]:
    """The graph of prompts; the table before it is of the one that decodes."""
    if "prefill_bytes" not in data:
        return []
    size = _megabytes(data["prefill_bytes"])
    if cache.capacity:
        return ["", f"And {size} more, a second graph for prompts, {cache.prefill} tokens at a time."]
    return ["", f"And {size} of int8 weights, a second graph for long prompts."]


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *(f"- {line}" for line in lines), ""] if lines else []


def _activations(data: Mapping[str, Any]) -> list[str]:
    if "activations" not in data:
        return []
    return [
        "## Activations",
        "",
        "Where int8 was measured to be too coarse for what enters a product:",
        "",
        *(f"- {name}: {kind}" for name, kind in data["activations"].items()),
        "",
    ]


def _speed(data: Mapping[str, Any]) -> list[str]:
    if "speed" not in data:
        return []
    speed = data["speed"]
    return [
        "## Speed",
        "",
        f"On {speed['processor']}, {speed['threads']} threads:",
        "",
        f"- decode {speed['decode_tokens_per_s']:,} tokens/s, over {speed['new_tokens']} tokens",
        f"- prefill {speed['prefill_tokens_per_s']:,} tokens/s, over {speed['prompt_tokens']} tokens",
        "",
    ]


def _quality(data: Mapping[str, Any]) -> list[str]:
    if "quality" not in data:
        return []
    found = data["quality"]
    if "mean_kld" not in found:
        return encoder_card.quality(found)
    return [
        "## Quality",
        "",
        f"On {found['tokens']:,} tokens of {found['text']}, in sequences of {found['length']}, "
        "against the checkpoint in float32:",
        "",
        f"- KL divergence {found['mean_kld']:.4g} ± {found['mean_kld_error']:.2g} nats per token in the mean, "
        f"p99 {found['p99_kld']:.4g}, at most {found['max_kld']:.4g}",
        f"- the same most likely token at {found['top1']:.2%} of the positions",
        f"- perplexity {found['perplexity']:.4g}, {found['bits_per_byte']:.4g} bits per byte: "
        f"{found['perplexity_ratio']:.4f} ± {found['perplexity_ratio_error']:.4f} times the checkpoint's perplexity",
        *_greedy(found["greedy"]),
        *_of_prompts(found.get("prefill")),
        "",
    ]


def _greedy(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return []
    same = statistics.median(found["same"])
    return [f"- greedy text: the same for {same:g} of {found['tokens']} tokens in the median of {len(found['same'])}"]


def _of_prompts(found: Mapping[str, Any] | None) -> list[str]:
    """The second graph; the figures before are of the one that decodes."""
    if found is None:
        return []
    return [
        f"- the graph of long prompts: KL divergence {found['mean_kld']:.4g} in the mean, p99 {found['p99_kld']:.4g}, "
        f"at most {found['max_kld']:.4g}; the same most likely token at {found['top1']:.2%}"
    ]


def _step(step: Mapping[str, Any]) -> str:
    options = ", ".join(f"{key} = {value}" for key, value in step.items() if key != "pass" and value != [])
    return f"- `{step['pass']}`: {options}" if options else f"- `{step['pass']}`"


def _millions(count: int) -> str:
    return f"{count / 1e9:.2f} billion" if count >= 1e9 else f"{count / 1e6:.1f} million"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
