"""How near plans come: predictions of `edgewise plan` against measurements, over shapes, bits and contexts.

    python benchmarks/plan.py --work FOLDER --docs docs/planning.md

Checkpoints are random (`shapes.py`). First bundles are built; then, in each of some rounds, this machine is probed and
each bundle is measured, in a process of its own: a prompt that fills the context, then tokens decoded one by one at its
end, and the most memory that the process held. Times are the best over the rounds, of the probe as of the bundles.
With one thread it is processor time, which neighbours disturb less. What was measured is kept in FOLDER: a run that was
stopped goes on where it was, and --again measures anew.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median

from shapes import shaped, write_checkpoint

from edgewise.bench.host import processor
from edgewise.pipeline import build as build_bundle
from edgewise.plan import plan_build
from edgewise.prefill import Prefill
from edgewise.registry import registry
from edgewise.runtime.threads import physical_cores
from edgewise.target import Kernel, Number, Target

RECIPES = {
    "float32": "",
    "int4, block 128": '[[step]]\npass = "quantize"\nbits = 4\nblock_size = 128\nsymmetric = false\n',
    "int4, block 32": '[[step]]\npass = "quantize"\nbits = 4\nblock_size = 32\nsymmetric = false\n',
    "int8, block 128": '[[step]]\npass = "quantize"\nbits = 8\nblock_size = 128\nsymmetric = false\n',
    "W8A8": '[[step]]\npass = "w8a8"\n',
}
RECIPES["int4, block 128; prompts W8A8"] = RECIPES["int4, block 128"]

COMBINATIONS = (
    ("smollm2-135m", "float32", 512),
    ("smollm2-135m", "float32", 4096),
    ("smollm2-135m", "int4, block 128", 512),
    ("qwen2.5-0.5b", "int4, block 128", 512),
    ("qwen2.5-0.5b", "int4, block 128", 4096),
    ("qwen2.5-0.5b", "int4, block 32", 512),
    ("qwen2.5-0.5b", "int8, block 128", 512),
    ("qwen2.5-0.5b", "W8A8", 512),
    ("qwen2.5-0.5b", "int4, block 128; prompts W8A8", 4096),
    ("llama-3.2-1b", "int4, block 128", 512),
    ("llama-3.2-1b", "int4, block 128", 4096),
    ("llama-3.2-1b", "int8, block 128", 512),
)
COMMAND = "from edgewise.cli.main import main; main()"
TIMED = 5  # runs of `edgewise plan`
WORKER = str(Path(__file__).parent / "workers" / "plan.py")
BEGIN, END = "<!-- benchmarks/plan.py: begin -->", "<!-- benchmarks/plan.py: end -->"


@dataclass(frozen=True)
class Measured:
    """What one process found."""

    prefill_s: float
    decode_s: float  # of a token
    memory: int


@dataclass(frozen=True)
class Row:
    """A combination with its predictions."""

    shape: str
    bits: str
    context: int
    predicted: Measured
    measured: Measured


def build(work: Path, shape: str, bits: str) -> Path:
    """The bundle of a combination; one that is there stays."""
    name = "".join(c if c.isalnum() else "-" for c in f"{shape} {bits}")
    output, recipe = work / f"{name}.edge", work / f"{name}.toml"
    recipe.write_text(RECIPES[bits])
    checkpoint = write_checkpoint(shaped(shape), work / shape)
    if not output.exists():
        build_bundle(checkpoint, output=output, recipe=recipe, prefill=second_graph(bits), load_check=False)
    return output


def second_graph(bits: str) -> Prefill | None:
    return "int8" if "prompts" in bits else None


def predict(work: Path, shape: str, bits: str, context: int, target: Target) -> Measured:
    """What the plan says."""
    bundle = build(work, shape, bits)
    plan = plan_build(
        work / shape,
        target=target,
        recipe=bundle.with_suffix(".toml"),
        context=context,
        prefill=second_graph(bits),
    )
    assert plan.speed is not None
    return Measured(plan.speed.full_prompt_s, 1 / plan.speed.full_tokens_per_s, plan.run_memory)


def rounds(work: Path, count: int, threads: int) -> tuple[list[Target], list[list[Measured]]]:
    """All that is measured: a profile of each round, and for each combination what each round found."""
    bundles = [build(work, shape, bits) for shape, bits, _ in COMBINATIONS]
    probes, found = list[Target](), [list[Measured]() for _ in COMBINATIONS]
    for number in range(count):
        profile = work / f"probe-{threads}-{number}.toml"
        if not profile.exists():
            say(f"round {number + 1} of {count}: probe")
            options = ["--threads", str(threads), "-o", str(profile)]
            call(["-c", COMMAND, "probe", *options])
        probes.append(registry().get_target(str(profile)))
        for bundle, (shape, bits, context), measured in zip(bundles, COMBINATIONS, found, strict=True):
            path = work / f"measured-{threads}-{number}-{bundle.stem}-{context}.json"
            if not path.exists():
                say(f"round {number + 1} of {count}: {shape}, {bits}, {context} tokens")
                path.write_text(call([WORKER, str(bundle), str(context), str(threads)]))
            measured.append(Measured(**json.loads(path.read_text())))
    return probes, found


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def call(arguments: list[str]) -> str:
    """What another interpreter prints."""
    return subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def plan_seconds(checkpoint: Path, *options: str, threads: int) -> float:
    """How long the command takes, from the start of its process to the end: the median of some runs."""
    clock = processor_time if threads == 1 else time.perf_counter
    taken = []
    for _ in range(TIMED):
        started = clock()
        call(["-c", COMMAND, "plan", str(checkpoint), *options])
        taken.append(clock() - started)
    return median(taken)


def processor_time() -> float:
    """Of the processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def best_profile(probes: list[Target]) -> Target:
    """The best of every figure: other work on the machine only takes away from them."""

    def most(numbers: Iterable[Number | None]) -> Number:
        return max((number for number in numbers if number), key=lambda number: number.value)

    hardware = probes[0].hardware
    kernels = {
        name: Kernel(
            most(probe.hardware.kernels[name].decode for probe in probes),
            most(probe.hardware.kernels[name].prefill for probe in probes),
        )
        for name in hardware.kernels
    }
    bandwidth = most(probe.hardware.bandwidth for probe in probes)
    return replace(probes[0], hardware=replace(hardware, kernels=kernels, bandwidth=bandwidth))


def best(found: list[Measured]) -> Measured:
    return Measured(
        min(each.prefill_s for each in found), min(each.decode_s for each in found), max(each.memory for each in found)
    )


def report(rows: list[Row], *, rounds: int, threads: int) -> str:
    """The table: what was predicted, what was measured, and how far they are apart."""
    lines = [
        f"Best of {rounds} rounds on {physical_cores()} cores of {processor()}, {threads} "
        f"thread{'s' if threads > 1 else ''}; onnxruntime {version('onnxruntime')}. A context is filled by one prompt; "
        "tokens are decoded at its end.",
        "",
        "| shape | weights | context | memory | off | prompt, tokens/s | off | decode, tokens/s | off |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        expected, found = row.predicted, row.measured
        cells = [
            row.shape,
            row.bits,
            f"{row.context:,}",
            *pair(expected.memory / 1e6, found.memory / 1e6),
            *pair(row.context / expected.prefill_s, row.context / found.prefill_s),
            *pair(1 / expected.decode_s, 1 / found.decode_s),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def pair(expected: float, found: float) -> tuple[str, str]:
    """Predicted and measured, and how much more was predicted."""
    return f"{expected:,.4g} / {found:,.4g}", f"{expected / found - 1:+.0%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, help="where checkpoints, bundles and measurements are kept")
    parser.add_argument("--docs", type=Path, help="the page whose table is replaced")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--again", action="store_true", help="measure anew; bundles stay")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    for path in [*options.work.glob("probe-*.toml"), *options.work.glob("measured-*.json")] if options.again else ():
        path.unlink()
    probes, found = rounds(options.work, options.rounds, options.threads)
    target = best_profile(probes)
    rows = [
        Row(*each, predict(options.work, *each, target), best(measured))
        for each, measured in zip(COMBINATIONS, found, strict=True)
    ]
    checkpoint = options.work / "qwen2.5-0.5b"
    one, all_ = (plan_seconds(checkpoint, *more, threads=options.threads) for more in ((), ("--all",)))
    table = report(rows, rounds=options.rounds, threads=options.threads)
    table += f"\n\n`edgewise plan` itself, for the shape of Qwen2.5-0.5B: {one:.2f} s, with `--all` {all_:.1f} s."
    print(table)
    if options.docs:
        before, _, rest = options.docs.read_text().partition(BEGIN)
        options.docs.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
