"""sdk, cli: `eval`: how good a bundle is on a text."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgewise.cli.output import json_option, print_json
from edgewise.cli.progress import bars

if TYPE_CHECKING:
    from edgewise.quality.report import Distance, Quality


@click.command("eval")
@click.argument("bundle")
@click.option("--text", type=click.Path(path_type=Path), required=True, help="A file, JSON lines, or a folder of them.")
@click.option("--against", metavar="OTHER", help="The checkpoint that it was made from, or another bundle.")
@click.option("--tokens", type=int, default=8192, show_default=True, help="How much of the text is taken.")
@click.option("--length", type=int, default=512, show_default=True, help="Tokens of a sequence.")
@json_option
def evaluate(bundle: str, text: Path, against: str | None, tokens: int, length: int, as_json: bool) -> None:
    """Measure how well a bundle foretells a text that it has not seen.

    With --against also how far it is from that model: KL divergence, perplexity ratio, greedy text. One that is
    stopped goes on where it was.

    \b
    Example:
      edgewise eval pycoder.edge --text examples/pycoder/heldout.txt --tokens 2048
      edgewise eval pycoder.edge --text examples/pycoder/heldout.txt --tokens 2048 --against examples/pycoder
    """
    from edgewise.calibration.texts import CalibrationText
    from edgewise.quality.evaluate import evaluate

    with bars() as progress:
        found = evaluate(bundle, CalibrationText(text, tokens, length), against=against, progress=progress)
    if as_json:
        print_json(asdict(found))
    else:
        click.echo("\n".join(_lines(found, against)))


def _lines(found: "Quality", against: str | None) -> list[str]:
    lines = [
        f"{found.tokens:,} tokens, in sequences of {found.length:,}",
        f"perplexity     {found.perplexity:.3f}",
        f"bits per byte  {found.bits_per_byte:.4f}",
    ]
    return [*lines, f"against {against}:", *_distance(found.distance)] if found.distance else lines


def _distance(found: "Distance") -> list[str]:
    return [
        f"KL divergence  mean {found.mean_kld:.5f} ± {found.mean_kld_error:.5f}, p99 {found.p99_kld:.4f}, "
        f"max {found.max_kld:.4f} nats per token",
        f"top-1          the same for {found.top1:.2%}",
        f"perplexity     {found.perplexity_ratio:.4f} ± {found.perplexity_ratio_error:.4f} "
        f"times {found.reference_perplexity:.3f}",
        *([f"greedy text    {found.greedy.sentence()}"] if found.greedy else []),
    ]
