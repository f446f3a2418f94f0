"""What a smaller vocabulary costs and saves: bytes, tokens of a text that was not seen, bits per byte.

    python benchmarks/vocabulary.py --work /tmp/edgewise-benchmarks --docs docs/vocabulary.md

The model is examples/pycoder; its tokens are those of calibration.txt, or of the first part of it, and figures are on
heldout.txt. Bits per byte compare models whose tokens differ.
"""

import argparse
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from quantization import insert_lines
from shapes import DEMO

import edgewise
from edgewise.calibration.texts import CalibrationText, passages
from edgewise.quality.evaluate import evaluate
from edgewise.recipe import Recipe, RecipeStep
from edgewise.text.tokenizer import Tokenizer

MARK = "vocabulary"
HELD_OUT, LENGTH = 16_384, 512
PARTS = (1.0, 0.25, 0.05)  # of calibration.txt, whose tokens stay
HEADING = """\
| tokens of | tokens | bytes, float32 | bytes, int4 | tokens a held-out kB | bits per byte |
|---|---:|---:|---:|---:|---:|"""


def row(name: str, text: Path | None, work: Path) -> str:
    """Build it in floats and in int4, and measure the first."""
    held_out = CalibrationText(DEMO / "heldout.txt", tokens=HELD_OUT, length=LENGTH)
    steps = (RecipeStep("prune-vocabulary", {"text": str(text)}),) if text else ()
    stored = []
    for after in ((RecipeStep("quantize", {"bits": 4}),), ()):
        recipe, output = Recipe((*steps, *after)), work / "vocabulary.edge"
        bundle = edgewise.build(DEMO, output=output, recipe=recipe, force=True)
        stored.append(sum(file.bytes for path, file in bundle.manifest.files.items() if path.endswith(".onnx_data")))
    tokenizer = Tokenizer.load(bundle.path)
    whole = list(passages(DEMO / "heldout.txt"))
    length = sum(len(tokenizer.encode(passage)) for passage in whole) / sum(len(each.encode()) for each in whole)
    bits = evaluate(bundle.path, held_out).bits_per_byte
    vocabulary = bundle.manifest.language_model.vocab_size
    return f"| {name} | {vocabulary:,} | {stored[1]:,} | {stored[0]:,} | {1000 * length:.0f} | {bits:.4f} |"


def rows(work: Path) -> Iterator[str]:
    yield row("the checkpoint", None, work)
    content = (DEMO / "calibration.txt").read_text("utf-8")
    for part in PARTS:
        text = work / "seen.txt"
        text.write_text(content[: round(part * len(content))], "utf-8")
        yield row(f"{len(text.read_bytes()) / 1000:.0f} kB of text", text, work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--docs", type=Path, help="the page whose table is replaced")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    insert_lines(chain([HEADING], rows(options.work)), options.docs, MARK)


if __name__ == "__main__":
    main()
