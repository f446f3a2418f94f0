"""sdk, bundle: the files of a bundle beside the graph: what travels with a checkpoint, the card, the manifest."""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import blake3
import onnx_ir as ir

from edgewise._version import __version__
from edgewise.bundle import genai, manifest
from edgewise.bundle.card import card, readme
from edgewise.bundle.manifest import CPU, Cache, File, Manifest, Provider
from edgewise.facts import EncoderFacts, Facts
from edgewise.graph import activations, layer, role
from edgewise.plan import Plan
from edgewise.prefill import CHUNK, FROM_TOKENS
from edgewise.prepare import Prepared
from edgewise.registry import registry
from edgewise.steps import record

logger = logging.getLogger(__name__)

GRAPH = "onnx/model.onnx"
PREFILL = "onnx/prefill.onnx"
ENCODER, DECODER = "onnx/encoder.onnx", "onnx/decoder.onnx"

# One run of a graph of 128 tokens takes as long as two or three of single ones: Llama 3.2 1B and 3B, Llama 3.1 8B on
# Snapdragon X Elite and 8 Elite, by the time to first token and the tokens a second that AI Hub publishes.
FIXED_FROM = 3

# Where transformers.js finds the graph: "fp32" is what it calls a file name without a suffix.
TRANSFORMERS_JS = {"dtype": "fp32", "use_external_data_format": {"model.onnx": 1}}


def graphs(prepared: Prepared) -> dict[str, tuple[str, ir.Model]]:
    """The graphs of a bundle: name, path and content; what weights they have in common lie beside the first."""
    if isinstance(prepared.facts, EncoderFacts):
        return {"encoder": (GRAPH, prepared.model)}
    if prepared.encoder:
        return {"decoder": (DECODER, prepared.model), "encoder": (ENCODER, prepared.encoder)}
    if prepared.prompts:
        return {"decode": (GRAPH, prepared.model), "prefill": (PREFILL, prepared.prompts)}
    return {"decoder": (GRAPH, prepared.model)}


def copy_companions(prepared: Prepared, folder: Path) -> dict[str, File]:
    """Tokenizer, templates and configurations, as the recipe left them; config.json says where the graph is."""
    facts = prepared.facts
    if prepared.encoder:
        logger.info("a bundle of an encoder and a decoder: no genai_config.json, only edgewise runs it")
    elif isinstance(facts, Facts) and not _cache(prepared).shared:
        logger.info("the graphs leave their cache to the runtime: no genai_config.json, only edgewise runs them")
    elif isinstance(facts, Facts) and not genai.is_uniform(facts):
        logger.warning("the layers differ in their heads: onnxruntime-genai cannot run this, no genai_config.json")
    files = {}
    for name in prepared.companions.names:
        content = prepared.companions.read(name)
        if name == "config.json" and isinstance(facts, Facts) and _cache(prepared).shared and not prepared.encoder:
            content = _with_transformers_js(content, facts)
        files[name] = _put(folder, name, content)
    return files


def finish(
    folder: Path, files: Mapping[str, File], prepared: Prepared, plan: Plan, measured: Mapping[str, Any]
) -> Manifest:
    """Write genai_config.json, the card and the manifest into a folder that holds all the rest.

    `measured` goes to the card: "placement", "speed", "quality", as far as they are known.
    """
    said = _manifest(files, prepared, plan, measured)
    beside = {"README.md": _put(folder, "README.md", readme(said).encode())}
    if isinstance(said.facts, Facts) and said.cache.shared and genai.runs(said.facts):
        beside[genai.FILE_NAME] = _put(folder, genai.FILE_NAME, _json(_genai(prepared, said.facts)))
    said = replace(said, files={**said.files, **beside})
    _put(folder, manifest.FILE_NAME, said.write().encode())
    return said


def _manifest(files: Mapping[str, File], prepared: Prepared, plan: Plan, measured: Mapping[str, Any]) -> Manifest:
    """The manifest, but for the files that are written of it."""
    about, cache = card(plan) | _activations(prepared.model) | dict(measured), _cache(prepared)
    return Manifest(
        format=manifest.oldest(prepared.facts),
        edgewise=__version__,
        target=plan.target,
        facts=prepared.facts,
        graphs={name: path for name, (path, _) in graphs(prepared).items()},
        files=files,
        providers=_providers(prepared, about),
        context=plan.context,
        cache=cache,
        session=prepared.target.session,
        threads=prepared.target.threads,
        prefill_from=_prefill_from(prepared),
        chunk=cache.prefill or (CHUNK if prepared.prompts else manifest.CHUNK),
        hidden_states=prepared.hidden_states,
        recipe=tuple(map(record, prepared.recipe)),
        versions=_versions(prepared),
        card=about,
    )


def _genai(prepared: Prepared, facts: Facts) -> dict[str, Any]:
    """What onnxruntime-genai reads."""
    return genai.genai_config(
        facts,
        graph=GRAPH,
        context=prepared.context,
        shared=True,
        generation=prepared.checkpoint.generation,
        providers=prepared.target.providers,
        session=prepared.target.session,
        positions=any(value.name == "position_ids" for value in prepared.model.graph.inputs),
    )


def _cache(prepared: Prepared) -> Cache:
    """How the lowered graphs keep keys and values, by their inputs; an encoder has none."""
    if isinstance(prepared.facts, EncoderFacts):
        return Cache()
    shared = not appends(prepared.model)
    fixed, dtype = prepared.target.needs.static, prepared.facts.attention[0].cache
    return Cache(dtype, shared, prepared.context if fixed else 0, fixed.prefill if fixed else 0)


def appends(model: ir.Model) -> bool:
    """Whether a graph gives keys and values of new tokens only: as many as it is given."""
    shapes = {str(value.name): value.shape for value in (*model.graph.inputs, *model.graph.outputs)}
    ids, present = shapes["input_ids"], shapes["present.0.key"]
    return ids is not None and present is not None and ids[1] == present[2]


def _providers(prepared: Prepared, card: Mapping[str, Any]) -> tuple[Provider, ...]:
    """Those of the target; and the CPU, where it was found to compute what they do not take."""
    fallen = "fallen" in card.get("placement", {})
    return (*prepared.target.providers, *([CPU] if fallen else []))


def _prefill_from(prepared: Prepared) -> int:
    if not prepared.prompts:
        return 0
    return FIXED_FROM if prepared.target.needs.static else FROM_TOKENS


def _activations(model: ir.Model) -> dict[str, Any]:
    """For the card: the products that state what their activations become, by layer and role."""
    stated = {_place(node): kind for node in model.graph if (kind := activations(node))}
    return {"activations": stated} if stated else {}


def _place(node: ir.Node) -> str:
    number = layer(node)
    return str(role(node)) if number is None else f"layer {number}, {role(node)}"


def _with_transformers_js(content: bytes, facts: Facts) -> bytes:
    """What transformers.js reads: where the graph is, and the sizes of its cache, which a recipe may have changed."""
    config, a = json.loads(content), facts.attention[0]
    heads = {"num_attention_heads": a.heads, "num_key_value_heads": a.kv_heads}
    sizes = {"hidden_size": facts.hidden_size, "num_hidden_layers": facts.layers, **heads}
    known = {name: size for name, size in sizes.items() if name in config}
    if a.heads * a.head_dim != facts.hidden_size:  # which is what is assumed where it is not said
        known["head_dim"] = a.head_dim
    return _json(config | known | {"transformers.js_config": TRANSFORMERS_JS})


def _json(data: Any) -> bytes:
    return (json.dumps(data, indent=2, sort_keys=True) + "\n").encode()


def _put(folder: Path, name: str, content: bytes) -> File:
    (folder / name).write_bytes(content)
    return File(len(content), blake3.blake3(content).hexdigest())


def _versions(prepared: Prepared) -> dict[str, str]:
    """Versions of the packages that decide what is in the bundle."""
    names = {"numpy", "onnx", "onnx-ir"}
    for step in (*prepared.recipe, *prepared.lowering):
        names |= set(registry().passes.owner(step.name).split(" and "))
    found = {"edgewise": __version__}
    for name in sorted(names - {"edgewise"}):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
