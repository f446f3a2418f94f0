"""sdk, cli: `probe`: what this machine can do, as a profile that plans are made with."""

from pathlib import Path

import click

from edgewise.cli.progress import bars


@click.command()
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE.toml", help="Write it there, not to stdout."
)
@click.option("--threads", type=int, help="Threads that compute.  [default: physical cores]")
def probe(output: Path | None, threads: int | None) -> None:
    """Measure this machine, and write its profile.

    Memory bandwidth, products of every format through ONNX Runtime's own kernels, attention, memory. It takes about
    half a minute, and means something on a machine that does nothing else meanwhile. `edgewise plan --target FILE.toml`
    reads it.

    \b
    Example:
      edgewise probe -o mine.toml
    """
    from edgewise.probe.machine import name_of
    from edgewise.probe.machine import probe as measure

    name = name_of(output) if output else "this-machine"
    with bars() as progress:
        found = measure(threads=threads, progress=progress)
    profile = found.profile(name)
    if output is None:
        click.echo(profile, nl=False)
        return
    output.write_text(profile, "utf-8")
    click.echo(f"{output}: {found.source}")
