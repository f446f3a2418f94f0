"""One scale for the activations of a whole run, instead of one for each token: what it saves, and what it loses.

    python benchmarks/per_tensor.py --work /tmp/edgewise-benchmarks

DynamicQuantizeLinear and a product that takes its scale need fewer passes over activations. The graph of prompts is
rewritten so, and compared with what it was: scores of the demo checkpoint's held-out text against the float checkpoint,
and processor time on one thread of a random checkpoint in the shape of Qwen2.5-0.5B, the graphs in turn.
"""

import argparse
import shutil
import time
from pathlib import Path
from statistics import median

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from quantization import sequences_of
from shapes import DEMO, shaped, write_checkpoint

import edgewise
from edgewise.bundle.read import Bundle
from edgewise.exporters import export_graph
from edgewise.prefill import CHUNK
from edgewise.prepare import open_checkpoint
from edgewise.quality.compare import measured
from edgewise.quality.divergence import Divergences, divergences
from edgewise.quality.report import distance
from edgewise.quality.scorers import Canonical, Lowered
from edgewise.recipe import Recipe, RecipeStep
from edgewise.runtime.model import Model
from edgewise.runtime.session import Session

SHAPE = "qwen2.5-0.5b"
TOKENS = 512
ROUNDS = 7


def per_tensor(source: Path, output: Path) -> Path:
    """The graph with a scale for each run."""
    model = ir.load(source)
    quantized: dict[ir.Value, tuple[ir.Value, ...]] = {}
    for node in list(model.graph):
        if node.op_type == "MatMulIntegerToFloat":
            _widen(node, quantized)
    RemoveUnusedNodesPass()(model)
    model.graph.sort()
    ir.save(model, output)
    return output


def _widen(product: ir.Node, quantized: dict[ir.Value, tuple[ir.Value, ...]]) -> None:
    codes = product.inputs[0]
    assert codes is not None
    rounding = codes.producer()
    assert rounding is not None
    x = rounding.inputs[0]
    assert x is not None
    if x not in quantized:
        node = ir.node("DynamicQuantizeLinear", [x], num_outputs=3, name=f"{rounding.name}.run")
        for value, part in zip(node.outputs, ("codes", "scale", "zero"), strict=True):
            value.name = f"{node.name}.{part}"
        rounding.prepend(node)
        quantized[x] = tuple(node.outputs)
    for place, value in zip((0, 2, 4), quantized[x], strict=True):
        product.replace_input_with(place, value)
    (reader,) = product.outputs[0].consumers()
    if reader.op_type == "GatedAdd":
        reader.op_type, reader.domain = "Add", ""
        reader.resize_inputs(2)
    elif reader.inputs[1] is not None and str(reader.inputs[1].name).endswith((".scale", ".factored")):
        reader.outputs[0].replace_all_uses_with(product.outputs[0])


def both(bundle: Bundle, graph: str) -> tuple[Model, Model]:
    """A graph of a bundle as it is, and with a scale for each run."""
    folder = bundle.path.with_name(f"{bundle.path.stem}-per-tensor")
    shutil.copytree(bundle.path / "onnx", folder, dirs_exist_ok=True)
    source = bundle.graph(graph)
    graphs = source, per_tensor(folder / source.name, folder / "run.onnx")
    first, second = (Model(path, bundle.manifest.language_model, threads=1, chunk=CHUNK) for path in graphs)
    shutil.rmtree(folder)
    return first, second


def quality(models: tuple[Model, Model], windows: int) -> None:
    sequences = sequences_of("heldout.txt", windows * TOKENS)
    reference = [scores.copy() for scores in Canonical(export_graph(open_checkpoint(DEMO))).logits(sequences)]
    floats = np.concatenate(reference).reshape(*sequences.shape, -1)
    for name, model in zip(("a token", "a run"), models, strict=True):
        streams = [iter(floats), Lowered(model).logits(sequences)]
        found = distance(Divergences.join(list(measured(streams, sequences, divergences))))
        print(f"a scale for {name}: mean KLD {found.mean_kld:.5f}, p99 {found.p99_kld:.4f}, same top {found.top1:.2%}")


def speed(models: tuple[Model, Model]) -> None:
    sessions = [Session(model, capacity=TOKENS) for model in models]
    tokens = np.random.default_rng(0).integers(1, models[0].facts.vocab_size, TOKENS).tolist()
    laps = []
    for _ in range(ROUNDS + 1):
        lap = []
        for session in sessions:
            session.rewind(0)
            started = time.process_time()
            session.prefill(tokens)
            lap.append(time.process_time() - started)
        laps.append(lap)
    ratio = median(token / run for token, run in laps[1:])
    print(f"{SHAPE}: with a scale for a run {ratio:.3f} times as fast")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and bundles")
    parser.add_argument("--windows", type=int, default=16, help=f"of {TOKENS} tokens, scored")
    options = parser.parse_args()
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    whole = Recipe((RecipeStep("w8a8"),))
    demo = edgewise.build(DEMO, output=work / "pycoder-w8a8.edge", recipe=whole, force=True, load_check=False)
    quality(both(demo, "decoder"), options.windows)
    checkpoint = write_checkpoint(shaped(SHAPE), work / SHAPE)
    large = edgewise.build(checkpoint, output=work / "large.edge", prefill="int8", force=True, load_check=False)
    speed(both(large, "prefill"))
    for bundle in (demo, large):
        shutil.rmtree(bundle.path)


if __name__ == "__main__":
    main()
