"""sdk, cli: `bench`: how fast a bundle is on this machine, and two such measurements side by side."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgewise.cli.output import json_option, print_json, size
from edgewise.cli.progress import bars

if TYPE_CHECKING:
    from edgewise.bench.answer import Answer
    from edgewise.bench.compare import Comparison
    from edgewise.bench.energy import Energy
    from edgewise.bench.rates import Latency, Rate
    from edgewise.bench.report import Report


@click.command()
@click.argument("bundle", required=False)
@click.option("--prefill", type=int, help="Tokens of the prompt.  [default: 512, or the context]")
@click.option("--decode", type=int, help="Tokens computed one by one.  [default: 128, or the context]")
@click.option("--runs", type=int, default=5, show_default=True, help="How often each is measured.")
@click.option("--threads", type=int, help="Threads that compute.  [default: physical cores]")
@click.option("--prompt", metavar="TEXT", help="Measure answers to this as well, as a user waits for them.")
@click.option("--max-tokens", type=int, help="Tokens of an answer.  [default: 128]")
@click.option(
    "--compare",
    "reports",
    nargs=2,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="A.json B.json",
    help="Measure nothing: put two results of --json side by side.",
)
@json_option
def bench(
    bundle: str | None,
    prefill: int | None,
    decode: int | None,
    runs: int,
    threads: int | None,
    prompt: str | None,
    max_tokens: int | None,
    reports: tuple[Path, Path] | None,
    as_json: bool,
) -> None:
    """Measure how fast a bundle is on this machine.

    Tokens per second, as llama-bench counts them: the mean and the standard deviation of runs on random tokens, after
    a warm-up. Beside them, how much of the machine's memory bandwidth decoding uses, which bounds it.

    \b
    Example:
      edgewise bench pycoder.edge --prefill 128 --decode 32
      edgewise bench pycoder.edge --prompt "def read_json("
      edgewise bench pycoder.edge --decode 32 --json > before.json
      edgewise bench pycoder.edge --decode 32 --threads 1 --json > after.json
      edgewise bench --compare after.json before.json
    """
    if (bundle is None) == (reports is None):
        raise click.UsageError("Give a BUNDLE to measure, or two results to --compare.")
    if max_tokens is not None and prompt is None:
        raise click.UsageError("Option '--max-tokens' needs '--prompt': it bounds the answer.")
    if reports is not None:
        _compare(*reports, as_json=as_json)
        return
    from edgewise.bench.report import bench as measure

    assert bundle is not None
    with bars() as progress:
        report = measure(
            bundle,
            prefill=prefill,
            decode=decode,
            runs=runs,
            threads=threads,
            prompt=prompt,
            max_tokens=max_tokens,
            progress=progress,
        )
    if as_json:
        print_json(report.data())
    else:
        _show(report)


def _show(report: "Report") -> None:
    _say("prefill", _rate(report.speed.prefill))
    _say("decode", _rate(report.speed.decode))
    memory = report.memory
    share = "" if memory.achieved is None else f"; decoding uses {memory.achieved:.0%} of it"
    _say("memory", f"{memory.bytes_per_s / 1e9:.1f} GB/s are read here{share}")
    _say("energy", _energy(report.speed.decode_energy, report.speed.decode))
    if report.answer is not None:
        _show_answer(report.answer)
    peak = "" if report.peak_memory_bytes is None else f", {size(report.peak_memory_bytes)} of memory at most"
    _say("process", f"{report.threads} threads, loaded in {report.load_s:.2f} s{peak}")
    _say("host", f"{report.host.processor}, onnxruntime {report.host.onnxruntime}, load {report.host.load}")
    _say("output", report.speed.output_blake3[:16])


def _show_answer(answer: "Answer") -> None:
    _say("answer", f"{_rate(answer.rate)}, after a prompt of {answer.prompt_tokens}")
    _say("  first", f"{_latency(answer.first_text_s)} to the first text")
    if answer.between_tokens_s is not None:
        _say("  then", f"{_latency(answer.between_tokens_s)} between tokens")
    _say("  energy", _energy(answer.energy, answer.rate))
    _say("  output", answer.output_blake3[:16] + ("" if answer.repeats else ", not the same in all runs"))


def _compare(first: Path, second: Path, *, as_json: bool) -> None:
    from edgewise.bench.compare import compare
    from edgewise.bench.report import Report

    found: Comparison = compare(Report.read(first), Report.read(second))
    if as_json:
        print_json(asdict(found))
        return
    for each in found.ratios:
        figures = f"{each.first:9.1f} by {each.second:9.1f} tokens/s"
        _say(each.name, f"{figures}  {each.ratio:.3f} times ({each.low:.3f} to {each.high:.3f})")
    for line in found.differences:
        _say("differ", line)


def _say(name: str, text: str) -> None:
    click.echo(f"{name:<8} {text}")


def _rate(rate: "Rate") -> str:
    return f"{rate.mean:8.1f} ± {rate.deviation:.1f} tokens/s ({rate.runs} runs of {rate.tokens})"


def _latency(latency: "Latency") -> str:
    return "  ".join(
        f"p{name} {1000 * s:.1f} ms" for name, s in zip((50, 95, 99), asdict(latency).values(), strict=True)
    )


def _energy(energy: "Energy", rate: "Rate") -> str:
    if energy.joules is None:
        return f"not measured: {energy.reason}"
    return f"{energy.joules / (rate.runs * rate.tokens):.3g} J a token ({energy.method})"
