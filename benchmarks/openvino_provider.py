"""Prefill and decode of a bundle for `openvino-cpu`, beside openvino-genai and our own bundle for `cpu-x64`, in turn.

    python benchmarks/openvino_provider.py --work /tmp/edgewise-benchmarks --docs docs/openvino.md

All run on 2 threads, each in a process of its own, with fresh random prompts. The first round is not counted. Quotes
medians, and medians of the ratios within a round with their least and most. openvino-genai has the model as
optimum-intel exports it (int4, group 128), and computes as it does by default: in bfloat16 where a processor can.
Before that, the demo model is computed with other settings of OpenVINO, for what they do to its scores.

--plugin names the package with OpenVINO's plugin for ONNX Runtime, where it is not onnxruntime_ep_openvino.
--python is a Python that has openvino-genai and optimum-intel; otherwise an environment is made.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import peer
from peers import PACKAGES, Contender, Speeds, exported_by_optimum, ours, race, versions
from quantization import hardware, insert
from shapes import SHAPES, shaped, write_checkpoint

import edgewise
from edgewise.registry import registry
from edgewise.target import Target

OURS, CPU, GENAI = "edgewise, openvino-cpu", "edgewise, cpu-x64", "openvino-genai"
DEMO = Path(__file__).parents[1] / "examples/pycoder"
TOKENS = 64  # of the demo model, computed with each of these
SETTINGS = [("f32", "0"), ("f32", "32"), ("f32", "128"), ("bf16", "32")]
PRECISIONS = """\
| precision | group of activations | tokens | the same | scores differ by | KL divergence |
|---|---:|---:|---:|---:|---:|"""
HEADING = f"""\
| model | runner | MB | prefill | decode | {OURS}, by it: prefill | decode |
|---|---|---:|---:|---:|---:|---:|"""


def contenders(shape: str, work: Path, target: Target, python: Path) -> list[Contender]:
    """The same random checkpoint for each; what an earlier run built is used again."""
    checkpoint, vocabulary = write_checkpoint(shaped(shape), work / shape), SHAPES[shape].vocab_size
    bundle = work / f"{shape}-openvino.edge"
    if not bundle.exists():
        edgewise.build(checkpoint, target=target, output=bundle)
    folder = exported_by_optimum(checkpoint, work / f"{shape}-openvino", python)
    theirs = (folder / "openvino_model.bin",)
    return [
        Contender(OURS, tuple(bundle.glob("onnx/*_data")), peer.here(), "bundle.py", (bundle,)),
        ours(CPU, checkpoint, work / shape, None),
        Contender(GENAI, theirs, python, "openvino_worker.py", (folder, vocabulary, peer.THREADS)),
    ]


def rows(shape: str, found: Sequence[Contender], laps: Sequence[Mapping[str, Speeds]]) -> Iterator[str]:
    for contender in found:
        name = contender.name
        speeds = [median(lap[name][i] for lap in laps) for i in (0, 1)]
        ratios = [sorted(lap[OURS][i] / lap[name][i] for lap in laps) for i in (0, 1)]
        spread = [f"{median(ratio):.2f} ({ratio[0]:.2f} to {ratio[-1]:.2f})" for ratio in ratios]
        size = f"{sum(file.stat().st_size for file in contender.weights) / 1e6:,.0f}"
        cells = [shape, name, size, f"{speeds[0]:,.0f}", f"{speeds[1]:,.1f}", *(spread if name != OURS else ["", ""])]
        yield f"| {' | '.join(cells)} |"


def precisions(target: Target) -> Iterator[str]:
    """The demo model in int4, as OpenVINO computes it with other settings; against floats on a processor."""
    for precision, group in SETTINGS:
        settings = {"INFERENCE_PRECISION_HINT": precision, "DYNAMIC_QUANTIZATION_GROUP_SIZE": group}
        options = {"load_config": json.dumps({"CPU": settings})}
        other = replace(target, providers=tuple(replace(each, options=options) for each in target.providers))
        with tempfile.TemporaryDirectory() as folder:
            bundle = edgewise.build(DEMO, target=other, output=Path(folder) / "demo.edge", parity=TOKENS)
        found = bundle.manifest.card["parity"]
        figures = f"{found['tokens']} | {found['same']} | {found['difference']:.2%} | {found['mean_kld']:.1g}"
        yield f"| {precision} | {group if group != '0' else 'floats'} | {figures} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints, builds and environments")
    parser.add_argument("--shapes", nargs="+", default=["qwen2.5-0.5b", "llama-3.2-1b"], choices=sorted(SHAPES))
    parser.add_argument("--plugin", default="onnxruntime_ep_openvino", metavar="PACKAGE")
    parser.add_argument("--python", type=Path, metavar="PATH")
    parser.add_argument("--prefill", type=int, default=512)
    parser.add_argument("--decode", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--docs", type=Path, help="a page whose table is replaced")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    python = options.python or peer.environment(options.work / GENAI, PACKAGES[GENAI])
    target = registry().get_target("openvino-cpu")
    target = replace(target, providers=tuple(replace(each, library=options.plugin) for each in target.providers))
    precise = list(precisions(target))
    print(PRECISIONS, *precise, sep="\n", flush=True)
    lines: list[str] = []
    for shape in options.shapes:
        found = contenders(shape, options.work, target, python)
        lines += rows(shape, found, race(found, prefill=options.prefill, decode=options.decode, rounds=options.rounds))
        print("\n".join(lines), f"load {os.getloadavg()[0]:.1f}", sep="\n", flush=True)
    text = "\n".join(
        [
            f"Prefill of {options.prefill} tokens, then {options.decode} decoded, in tokens a second: medians of",
            f"{options.rounds} rounds on {hardware()}, 2 threads; {versions({GENAI: python})}. Above 1, the bundle for",
            f"OpenVINO is faster. These processes and others of the machine made a load of {os.getloadavg()[0]:.0f}.",
            "",
            HEADING,
            *lines,
            "",
            "What OpenVINO computes of the demo model in int4, against floats on a processor: how many tokens come",
            "before the first other one, which two close scores decide, and how far all scores are apart at most.",
            "",
            PRECISIONS,
            *precise,
        ]
    )
    if options.docs:
        insert(options.docs, text, "openvino_provider")


if __name__ == "__main__":
    main()
