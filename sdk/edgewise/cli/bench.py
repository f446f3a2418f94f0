"""sdk, cli: `bench`: how fast a bundle is on this machine."""

from dataclasses import asdict

import click

from edgewise.cli.output import json_option, print_json, size
from edgewise.cli.progress import bars


@click.command()
@click.argument("bundle")
@click.option("--prefill", type=int, default=512, show_default=True, help="Tokens of the prompt.")
@click.option("--decode", type=int, default=128, show_default=True, help="Tokens generated, one by one.")
@click.option("--runs", type=int, default=5, show_default=True, help="How often each is measured.")
@click.option("--threads", type=int, help="Threads that compute.  [default: physical cores]")
@json_option
def bench(bundle: str, prefill: int, decode: int, runs: int, threads: int | None, as_json: bool) -> None:
    """Measure how fast a bundle is on this machine.

    Tokens per second: the mean, and the standard deviation, of runs on random tokens after a warm-up.

    \b
    Example:
      edgewise bench pycoder.edge --prefill 128 --decode 32
    """
    from edgewise.bench import measure

    with bars() as progress:
        speed = measure(bundle, prefill=prefill, decode=decode, runs=runs, threads=threads, progress=progress)
    if as_json:
        print_json(asdict(speed))
        return
    for name, rate in (("prefill", speed.prefill), ("decode", speed.decode)):
        click.echo(f"{name:<8} {rate.mean:8.1f} ± {rate.deviation:.1f} tokens/s ({rate.runs} runs of {rate.tokens})")
    memory = "" if speed.peak_memory_bytes is None else f", {size(speed.peak_memory_bytes)} of memory at most"
    click.echo(f"{speed.threads} threads, loaded in {speed.load_s:.2f} s{memory}")
