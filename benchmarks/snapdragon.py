"""Bundles of the demo model for Qualcomm's chips: what they weigh, and what their emulator computes.

    python benchmarks/snapdragon.py --docs docs/qnn.md

Each is built twice: as it goes to the device, with one binary for both graphs, and with one for each, which the
emulator loads. Without a step of a recipe the scores are those of the float graph, computed in float16.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from edgewise.bundle.read import Bundle
from edgewise.pipeline import build
from edgewise.recipe import Recipe
from edgewise.registry import registry
from edgewise.target import Target

ROOT = Path(__file__).parents[1]
CHIPS = ("qnn-x-elite", "qnn-8-elite", "qnn-8-gen3")
RECIPES = {"floats": (Recipe(()), 8), "int4, block 32": (None, 32)}  # and how many tokens are compared
BEGIN, END = "<!-- benchmarks/snapdragon.py: begin -->", "<!-- benchmarks/snapdragon.py: end -->"
COLUMNS = "chip | weights | nodes | one binary | two | tokens | the same | scores differ by | KL divergence"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--docs", type=Path, help="the page whose table is replaced")
    arguments = parser.parse_args()
    rows = [f"| {COLUMNS} |", "|---|---|" + "---:|" * (COLUMNS.count("|") - 1)]
    for row in _rows(arguments.context):
        print(row, flush=True)
        rows.append(row)
    if arguments.docs:
        _write(arguments.docs, rows, arguments.context)


def _rows(context: int) -> Iterator[str]:
    for name in CHIPS:
        target = registry().get_target(name)
        for weights, (recipe, tokens) in RECIPES.items():
            with tempfile.TemporaryDirectory() as folder:
                yield _row(target, weights, recipe, tokens, context, Path(folder))


def _row(target: Target, weights: str, recipe: Recipe | None, tokens: int, context: int, folder: Path) -> str:
    assert target.compile
    model = ROOT / "examples/pycoder"
    shared = build(model, target=target, output=folder / "shared.edge", recipe=recipe, context=context)
    alone = replace(target, compile=replace(target.compile, share_weights=False))
    apart = build(model, target=alone, output=folder / "apart.edge", recipe=recipe, context=context, parity=tokens)
    found, nodes = apart.manifest.card["parity"], shared.manifest.card["placement"]["nodes"]
    counts = " + ".join(str(sum(nodes[graph].values())) for graph in ("decode", "prefill"))
    sizes = " | ".join(f"{_binaries(bundle) / 1e6:.1f} MB" for bundle in (shared, apart))
    figures = f"{found['tokens']} | {found['same']} | {found['difference']:.2%} | {found['mean_kld']:.1g}"
    return f"| `{target.name}` | {weights} | {counts} | {sizes} | {figures} |"


def _binaries(bundle: Bundle) -> int:
    return sum(file.bytes for name, file in bundle.manifest.files.items() if "_context" in name)


def _write(page: Path, rows: list[str], context: int) -> None:
    """Replace what is between the marks."""
    before, _, rest = page.read_text("utf-8").partition(BEGIN)
    said = f"onnxruntime {version('onnxruntime')}, onnxruntime-qnn {version('onnxruntime-qnn')}, context {context}:"
    page.write_text("\n".join([f"{before}{BEGIN}", said, "", *rows, f"{END}{rest.partition(END)[2]}"]), "utf-8")


if __name__ == "__main__":
    main()
