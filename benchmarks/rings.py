"""What rings save of a cache, where lengths are fixed: by the sizes of public models, no weight is read.

    python benchmarks/rings.py --docs docs/cache.md

Keys and values in float32, as graphs of fixed lengths have them; prompts in pieces of 128.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from edgewise import rings
from edgewise.facts import Attention, Facts
from edgewise.target import Lengths

CONTEXTS = (4096, 8192, 32768)
BEGIN, END = "<!-- benchmarks/rings.py: begin -->", "<!-- benchmarks/rings.py: end -->"


@dataclass(frozen=True)
class Shape:
    """A decoder, as far as its cache goes, by its config.json."""

    layers: int
    kv_heads: int
    head_dim: int
    window: int
    every: int  # so many layers are one that sees all, after others with a window; 0: all have one
    context: int  # that the model has

    def facts(self, context: int) -> Facts:
        """With rings where these are shorter than a context."""
        whole = Attention(self.kv_heads, self.kv_heads, self.head_dim, 1.0)
        ring = rings.slots(self.window, Lengths().prefill, context)
        window = replace(whole, window=self.window, ring=ring)
        sees_all = (bool(self.every) and not (i + 1) % self.every for i in range(self.layers))
        return Facts("", 1, 1, context, tuple(whole if all_ else window for all_ in sees_all))


SHAPES = {
    "Gemma 3 1B": Shape(26, 1, 256, 512, 6, 32768),
    "Gemma 3 4B": Shape(34, 4, 256, 1024, 6, 131_072),
    "Gemma 2 2B": Shape(26, 4, 256, 4096, 2, 8192),
    "Phi-3 mini 4k": Shape(32, 32, 96, 2047, 0, 4096),
    "Mistral 7B 0.1": Shape(32, 8, 128, 4096, 0, 32768),
}


def row(name: str, shape: Shape, context: int) -> str:
    facts = shape.facts(context)
    whole = replace(facts, attention=tuple(replace(each, ring=0) for each in facts.attention))
    kept, all_ = (each.cache_bytes(context) / 1e6 for each in (facts, whole))
    windows = [each for each in facts.attention if each.window]
    slots = f"{windows[0].ring:,}" if windows[0].ring else "none"
    figures = f"{context:,} | {slots} | {all_:,.0f} MB | {kept:,.0f} MB | {all_ / kept:.1f}"
    return f"| {name} | {len(windows)} of {shape.layers}, {shape.window:,} | {figures} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=Path, help="the page whose table is replaced")
    docs: Path | None = parser.parse_args().docs
    rows = ["| model | layers with a window | context | ring | whole | with rings | times smaller |"]
    rows.append("|---|---|---:|---:|---:|---:|---:|")
    for name, shape in SHAPES.items():
        rows += [row(name, shape, context) for context in CONTEXTS if context <= shape.context]
    table = "\n".join(rows)
    print(table)
    if docs:
        page = docs.read_text("utf-8")
        before, _, rest = page.partition(BEGIN)
        _, _, after = rest.partition(END)
        docs.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
