"""tests: writes docs/families.md, the table of supported families, from the parity cases that pass."""

import sys
import tempfile
from collections.abc import Collection
from importlib import import_module
from pathlib import Path

import parity
from cases import CASES
from edgewise.graph import get_facts
from edgewise.writer import write_model
from edgewise_exporters.decoder.families import FAMILIES

PAGE = Path(__file__).parents[1] / "docs" / "families.md"

HEAD = """# Model families

The exporter `decoder` turns a checkpoint into a graph from its `config.json` and its safetensors alone. Each family
is compared with transformers on random checkpoints: logits in float32 within 1e-5 of the largest one, for a prompt in
one piece, in chunks, token by token and in a padded batch, over more than twice the window and beyond the original
context of the rotary embedding; then 64 greedy tokens, which are the same. This page is written from the cases that
pass, by `python tests/families.py`.

| `model_type` | what it is | compared with transformers |
|---|---|---|
"""

FOOT = """
## What is refused

A tensor that is absent, that is left over, or that has another shape than `config.json` says; weights in another type
than bfloat16, float16 and float32, but for [quantized ones](quantized-checkpoints.md) of three kinds; a key of
`config.json` that is not known and is not switched off. Each is one line that names the tensor or the key. If you know
that a key changes nothing, `--ignore-config KEY` leaves it out. Families that attend through latent keys and values
(`deepseek_v2`, `deepseek_v3` and their like) are not there yet.

## Contexts

The rotary embeddings `dynamic` and `longrope` depend on the length of the context. transformers changes them in the
middle of a generation, when a sequence outgrows the original context, and keeps the keys that were rotated before.
Here the table is fixed for a session by the context that it is opened with, so that a token's scores do not depend on
how the prompt was cut. A session of the same context as a prompt in one piece computes what transformers computes.

A model with `dynamic` reaches its `factor` times `max_position_embeddings`. By default a bundle gets no more than the
original context, in which nothing is scaled; ask for more with `--context` when it is built, or with
`Runner.open(path, context=...)`. A runtime that binds no table of its own (onnxruntime-genai) finds the one of the
bundle's context in the graph; that of `edgewise export` is the table of the original context.

## Mixtures of experts

In the graph of the exporter every expert is a set of matrix products of its own, under the checkpoint's names whether
that has stored experts one by one or as stacks, and computes every token; gates of zero drop what a token was not given
to. So every step of a recipe works on them: `quantize`, by any method, `awq`, `smoothquant`, `mix` (not
`rotate`). Routers stay in floats unless a rule says otherwise (`role = "router"`).

For ONNX Runtime each mixture becomes one operator, which computes only what it must: `MoE` in floats, `QMoE` where the
experts of a layer are quantized, with 2, 4 or 8 bits, all of them with the same number, and with zero points all or
none. It takes biases, and a gated unit that is clamped as that of gpt-oss is. What a router says beyond a softmax
(sigmoids, corrections, groups of experts, a scale) is computed beside the operator, which is given the gates. Where
rules give the experts of a layer several formats, or their activation is not SiLU, all experts are computed for every
token, and the build says so. A bundle holds all experts in memory; of those that a token is not given to, nothing is
read, and `edgewise bench` counts bytes accordingly. Layers of a checkpoint that guess further tokens
(`num_nextn_predict_layers`) are left out.

## Sinks

Each head of gpt-oss has a score of its own, which takes a share of the softmax and adds nothing. In the graph of the
exporter the attention is a standard one, and what it gives is then multiplied by the share that is left; for ONNX
Runtime the sinks are an input of its attention. Dialects whose attention is made of standard operators refuse them.

## A family of your own

A family is data: where it differs from llama. A plugin adds one on a subclass of the exporter, which it registers
with `register_exporters` ([plugins.md](plugins.md)). The first Gemma, which is not among the families above:

```python
from edgewise_exporters.decoder import Decoder, Family


class Gemma(Decoder):
    \"\"\"The first Gemma (arXiv 2403.08295).\"\"\"

    name = "gemma"
    families = {
        "gemma": Family(
            "gemma",
            norm_offset=1.0,
            scaled_embedding=True,
            attention_bias="configured",
            defaults={"head_dim": 256, "hidden_act": "gelu_pytorch_tanh", "tie_word_embeddings": True},
        )
    }
```
"""


def page(passing: Collection[str]) -> str:
    """The page, with the families and the cases of them that pass."""
    rows = []
    for family in FAMILIES:
        cases = [CASES[name].what for name in CASES if CASES[name].family == family and name in passing]
        if cases:
            rows.append(f"| `{family}` | {_summary(family)} | {'; '.join(cases)} |\n")
    return HEAD + "".join(rows) + FOOT


def _summary(family: str) -> str:
    """What the family's file says of itself."""
    text = import_module(f"edgewise_exporters.decoder.families.{family}").__doc__ or ""
    return " ".join(text.split("families: ", 1)[1].split()).rstrip(".")


def _passes(name: str, home: Path) -> bool:
    case, oracle, model = CASES[name], parity.oracle(name, home), parity.export(name, home)
    write_model(model, oracle.checkpoint / "model.onnx")
    graph, facts = parity.load(oracle.checkpoint / "model.onnx"), get_facts(model)
    tokens = parity.greedy(parity.Canonical(graph, facts, case.decode_context), oracle.tokens[0, : parity.PROMPT])
    differences = [
        parity.difference(feed(parity.Canonical(graph, facts, case.context), oracle.tokens), oracle)
        for feed in parity.FEEDINGS.values()
    ]
    print(f"{name}: {max(differences):.1e}", file=sys.stderr)
    return tokens == oracle.greedy and max(differences) <= parity.TOLERANCE


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        PAGE.write_text(page([name for name in CASES if _passes(name, Path(home))]), "utf-8")
