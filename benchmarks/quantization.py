"""Quality, size, speed and cost of quantized models: edgewise, ONNX Runtime's quantizer and llama.cpp.

    python benchmarks/quantization.py --work /tmp/edgewise-benchmarks --docs docs/quantization.md

The model is examples/pycoder; the reference is its float graph, and the text its heldout.txt, which neither training
nor calibration has seen. Divergences of all are computed by the same code, from their scores of the same tokens. Speeds
are medians of runs in turn, all on 2 threads. Cost is of the process that quantizes: CPU seconds and peak memory.
A run that was stopped goes on with what it made in the work folder.
--llama-python names a Python that has llama-cpp-python and gguf; without it, an environment is made.
"""

import argparse
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import numpy as np
from candidates import Candidate, Failed
from ours_quantized import CALIBRATION_TOKENS, FLOAT, MIX, RECIPES, build
from peers_quantized import LLAMA_KINDS, ORT_METHODS, Llama, quantized_by_onnxruntime
from shapes import DEMO
from speed import Worker

from edgewise.calibration.texts import CalibrationText
from edgewise.exporters import export_graph
from edgewise.prepare import open_checkpoint
from edgewise.quality.compare import measured
from edgewise.quality.divergence import Divergences, divergences
from edgewise.quality.report import Distance, distance
from edgewise.quality.scorers import Canonical
from edgewise.text.tokenizer import Tokenizer

LENGTH = 512
PREFILL, DECODE, ROUNDS = 512, 128, 5
GPTQ_SEQUENCES = 2  # ONNX Runtime's GPTQ runs the model once for each weight and sequence
SAME = 1e-4  # nats: less than that is arithmetic
MATCHED = ("Q3_K_M", "Q4_K_M")  # whose bytes a mix gets
MARK = "quantization"
HEADING = """\
| method | format | bytes | mean KLD | p99 KLD | top-1 | perplexity | decode | prefill | CPU s | peak MB |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"""

Entry = Candidate | Failed


def sequences_of(text: str, tokens: int) -> np.ndarray:
    return CalibrationText(DEMO / text, tokens=tokens, length=LENGTH).sequences(Tokenizer.load(DEMO))


def ours(work: Path, budgets: Mapping[str, int]) -> Iterator[Entry]:
    """Every recipe, and mixes within the bytes that peers take."""
    for (name, form), recipe in RECIPES.items():
        yield build(name, form, recipe, checkpoint=DEMO, work=work)
    for kind, budget in budgets.items():
        form = f"int2/4/8, 128, as {kind}"
        yield build("mix", form, MIX.format(budget, 128), checkpoint=DEMO, work=work)


def onnxruntime(work: Path, floats: Path) -> Iterator[Entry]:
    calibration = work / "calibration.npy"
    np.save(calibration, sequences_of("calibration.txt", GPTQ_SEQUENCES * LENGTH))
    for method in ORT_METHODS:
        yield quantized_by_onnxruntime(method, floats, calibration, work)


def speeds(candidates: Sequence[Candidate]) -> dict[str, tuple[float, float]]:
    """Tokens a second of prefill and decode, medians of runs in turn."""
    with ExitStack() as stack:
        workers = {}
        for candidate in candidates:
            python, script, arguments = candidate.timer
            workers[_key(candidate)] = stack.enter_context(Worker.start(python, script, *arguments))
        rounds = [{key: w.measure(PREFILL, DECODE, seed) for key, w in workers.items()} for seed in range(ROUNDS + 1)]
    found = rounds[1:]
    return {key: (median(r[key][0] for r in found), median(r[key][1] for r in found)) for key in workers}


def _key(entry: Entry) -> str:
    return f"{entry.name} {entry.form}"


def row(candidate: Candidate, found: Distance, speed: tuple[float, float]) -> str:
    cost = candidate.cost
    cells = [
        candidate.name,
        candidate.form,
        f"{candidate.bytes:,}",
        f"{found.mean_kld:.4f}",
        f"{found.p99_kld:.3f}",
        f"{found.top1:.1%}",
        f"{found.perplexity_ratio:.4f}",
        f"{speed[1]:,.0f}",
        f"{speed[0]:,.0f}",
        f"{cost.cpu_s:.1f}" if cost else "",
        f"{cost.peak_bytes / 1e6:,.0f}" if cost else "",
    ]
    return f"| {' | '.join(cells)} |"


def failed_row(entry: Failed) -> str:
    return f"| {entry.name} | {entry.form} | failed: {entry.problem} |" + " |" * 8


def hardware() -> str:
    said = subprocess.run(["lscpu"], capture_output=True, text=True).stdout
    named = [line.partition(":")[2].strip() for line in said.splitlines() if line.startswith("Model name")]
    return f"{os.cpu_count()} cores of {named[0] if named else platform.processor()}"


def insert(docs: Path, text: str, mark: str) -> None:
    """Put the text between the markers of a script. Raises SystemExit where there are none."""
    begin, end = (f"<!-- benchmarks/{mark}.py: {place} -->" for place in ("begin", "end"))
    page = docs.read_text()
    if begin not in page or end not in page:
        raise SystemExit(f"{docs} has no markers; put these where the table goes:\n{begin}\n{end}")
    docs.write_text(page.partition(begin)[0] + f"{begin}\n\n{text}\n\n{end}" + page.partition(end)[2])


def insert_lines(lines: Iterable[str], docs: Path | None, mark: str) -> None:
    """Print lines as they come, and put them between the markers of a script where there is a page."""
    printed = []
    for line in lines:
        print(line, flush=True)
        printed.append(line)
    if docs:
        insert(docs, "\n".join(printed), mark)


def report(entries: Sequence[Entry], sequences: np.ndarray) -> str:
    """The table, and what it was measured on."""
    reference = np.concatenate(
        [scores.copy() for scores in Canonical(export_graph(open_checkpoint(DEMO))).logits(sequences)]
    ).reshape(*sequences.shape, -1)
    found: dict[str, Distance] = {}
    candidates = [entry for entry in entries if isinstance(entry, Candidate)]
    for candidate in candidates:
        streams = [iter(reference), candidate.scores(sequences)]
        found[_key(candidate)] = distance(Divergences.join(list(measured(streams, sequences, divergences))))
        print(f"{_key(candidate):45} {candidate.bytes:11,} {found[_key(candidate)].mean_kld:.5f}", flush=True)
        if "F32" in candidate.name and found[_key(candidate)].mean_kld > SAME:
            raise SystemExit("the GGUF file is not the model: its float scores differ")
    fast = speeds(candidates)
    rows = [
        row(entry, found[_key(entry)], fast[_key(entry)]) if isinstance(entry, Candidate) else failed_row(entry)
        for entry in entries
    ]
    return "\n".join(
        [
            f"Scored: {sequences.size:,} tokens of `heldout.txt`, {LENGTH} at a time. Calibrated on "
            f"{CALIBRATION_TOKENS:,} tokens of `calibration.txt` (ONNX Runtime's GPTQ: {GPTQ_SEQUENCES * LENGTH:,}).",
            f"Measured on {hardware()}, with 2 threads; decode ({DECODE} tokens) and prefill ({PREFILL}) in tokens a",
            "second, CPU seconds and peak memory of the process that quantizes.",
            "",
            HEADING,
            *rows,
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for models and environments")
    parser.add_argument("--llama-python", type=Path, help="a Python that has llama-cpp-python and gguf")
    parser.add_argument("--windows", type=int, default=32, help=f"of {LENGTH} tokens, scored")
    parser.add_argument("--docs", type=Path, help="a page whose table is replaced")
    options = parser.parse_args()
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    llama = Llama.of(options.llama_python, work)
    theirs: list[Entry] = [llama.convert(DEMO), *map(llama.quantize, LLAMA_KINDS)]
    sizes = {entry.name: entry.bytes for entry in theirs if isinstance(entry, Candidate)}
    budgets = {kind: sizes[f"llama.cpp {kind}"] for kind in MATCHED}
    floats = build("float", "", FLOAT, checkpoint=DEMO, work=work)
    if isinstance(floats, Failed):
        raise SystemExit(floats.problem)
    folder = Path(str(floats.timer[2][0]))
    entries = [floats, *ours(work, budgets), *onnxruntime(work, folder), *theirs]
    text = report(entries, sequences_of("heldout.txt", options.windows * LENGTH))
    print(text)
    if options.docs:
        insert(options.docs, text, MARK)


if __name__ == "__main__":
    main()
