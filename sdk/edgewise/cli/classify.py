"""sdk, cli: `classify`: texts get labels."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgewise.cli.output import json_option, print_json, print_table
from edgewise.cli.texts import given_texts, texts_options

if TYPE_CHECKING:
    from edgewise.runtime.labels import Classification

SHOWN = 60  # characters of a text in a table


@click.command()
@click.argument("bundle")
@texts_options
@json_option
def classify(bundle: str, texts: tuple[str, ...], source: Path | None, as_json: bool) -> None:
    """Say which label each of TEXTS has, or each stretch of it, and how probable that is.

    A table has the most probable label; JSON has all of them, and of a model that labels tokens every token.

    \b
    Example:
      edgewise classify sentiment.edge "What a day!" "It broke at once."
      edgewise classify names.edge --file letters.txt --json
    """
    from edgewise.runtime.encoder import Encoder

    given = given_texts(texts, source)
    with Encoder.open(bundle) as encoder:
        found = encoder.classify(given)
    if as_json:
        print_json([{"text": text, **_plain(each)} for text, each in zip(given, found, strict=True)])
    else:
        print_table(list(_rows(given, found)))


def _plain(found: "Classification") -> dict[str, Any]:
    """Without the half that the task does not give."""
    given = asdict(found)
    names = ["labels"] if found.labels else ["tokens", "spans"]
    return {name: given[name] for name in names}


def _rows(texts: Sequence[str], found: "Sequence[Classification]") -> Iterator[dict[str, str]]:
    for text, each in zip(texts, found, strict=True):
        for label in each.labels[:1]:
            yield {"text": _short(text), "label": label.label, "probability": f"{label.probability:.4f}"}
        for span in each.spans:
            where = f"{span.start}-{span.end}"
            yield {
                "text": _short(text),
                "at": where,
                "what": _short(span.text),
                "label": span.label,
                "probability": f"{span.probability:.4f}",
            }


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 3]}..."
