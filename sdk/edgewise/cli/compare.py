"""sdk, cli: `compare`: bundles side by side, for one device."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgewise.cli.output import json_option, print_json, size, table
from edgewise.cli.progress import bars

if TYPE_CHECKING:
    from edgewise.ledger.compare import Ledger
    from edgewise.ledger.variant import Variant


@click.command()
@click.argument("bundles", nargs=-1, required=True)
@click.option(
    "--text", type=click.Path(path_type=Path), required=True, help="Text of the domain that the model is to work in."
)
@click.option("--out-of-domain", type=click.Path(path_type=Path), metavar="PATH", help="Text of another domain, too.")
@click.option("--tokens", type=int, default=8192, show_default=True, help="How much of each text is taken.")
@click.option("--length", type=int, default=512, show_default=True, help="Tokens of a sequence.")
@click.option("--against", metavar="OTHER", help="A bundle or a checkpoint.  [default: the first bundle]")
@click.option("--target", help="A device by its name, or a profile by its path.  [default: the bundles' own]")
@click.option("--memory", type=int, metavar="N", help="Bytes that a runner may take.  [default: the target's]")
@click.option("--context", type=int, help="Tokens that a session holds.  [default: the bundles' own]")
@click.option(
    "--runs", type=int, default=5, show_default=True, help="How often speed is measured, where this is the target."
)
@json_option
def compare(
    bundles: tuple[str, ...],
    text: Path,
    out_of_domain: Path | None,
    tokens: int,
    length: int,
    against: str | None,
    target: str | None,
    memory: int | None,
    context: int | None,
    runs: int,
    as_json: bool,
) -> None:
    """Hold bundles against each other: what fits, what is faster, what it costs in quality.

    Bytes that are resident and bytes that a token reads, operations, predicted speed and, where this machine is the
    target, measured speed, and how far each is from a reference on a text, and on one of another domain.

    \b
    Example:
      edgewise compare pycoder.edge --against examples/pycoder --text examples/pycoder/heldout.txt --tokens 1024
      edgewise compare pycoder.edge --target pi-5 --text examples/pycoder/heldout.txt --tokens 1024
    """
    from edgewise.calibration.texts import CalibrationText
    from edgewise.ledger.compare import compare

    with bars() as progress:
        found = compare(
            bundles,
            text=CalibrationText(text, tokens, length),
            out_of_domain=CalibrationText(out_of_domain, tokens, length) if out_of_domain else None,
            target=target,
            against=against,
            memory=memory,
            context=context,
            runs=runs,
            progress=progress,
        )
    print_json(plain(found)) if as_json else click.echo("\n".join(lines(found)))


def plain(ledger: "Ledger") -> dict[str, Any]:
    """A ledger as data, with what it comes to."""
    from edgewise.ledger.verdict import verdict

    return asdict(ledger) | {"fits": list(map(ledger.fits, ledger.variants)), "verdict": list(verdict(ledger))}


def lines(ledger: "Ledger") -> list[str]:
    """A ledger, as people read it."""
    from edgewise.ledger.verdict import verdict

    budget = "" if ledger.budget is None else f", {size(ledger.budget)} of memory"
    return [
        f"on {ledger.target}{budget}, with a context of {ledger.context:,} tokens; held against {ledger.against}",
        *table([_size(ledger, each) for each in ledger.variants]),
        "",
        *table([_speed(each) for each in ledger.variants]),
        "",
        *table([_quality(each) for each in ledger.variants]),
        "",
        *verdict(ledger),
        *ledger.notes,
    ]


def _size(ledger: "Ledger", variant: "Variant") -> dict[str, str]:
    return {
        "bundle": variant.bundle,
        "parameters": f"{variant.parameters:,}",
        "active": f"{variant.active_parameters:,}",
        "weights": size(variant.weights),
        "in memory": size(variant.memory),
        "fits": {True: "yes", False: "NO", None: "?"}[ledger.fits(variant)],
        "a token reads": size(variant.active),
        "operations": f"{variant.operations:,}",
    }


def _speed(variant: "Variant") -> dict[str, str]:
    cells = {"bundle": variant.bundle}
    for name in ("decode", "prefill"):
        for kind in ("measured", "predicted"):
            pace = getattr(variant, kind)
            cells[f"{name}, {kind}"] = f"{getattr(pace, name):,.0f}" if pace else "?"
    return cells


def _quality(variant: "Variant") -> dict[str, str]:
    cells = {"bundle": variant.bundle}
    for quality, where in ((variant.inside, ""), (variant.outside, " outside")):
        if quality:
            far = quality.distance
            cells[f"KLD{where}"] = f"{far.mean_kld:.4f} ± {far.mean_kld_error:.4f}" if far else "-"
            cells[f"bits per byte{where}"] = f"{quality.bits_per_byte:.4f}"
    return cells
