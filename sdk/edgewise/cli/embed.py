"""sdk, cli: `embed`: texts become vectors."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgewise.cli.texts import given_texts, texts_options

if TYPE_CHECKING:
    from edgewise.runtime.pooling import Floats


@click.command()
@click.argument("bundle")
@texts_options
@click.option("--prompt", metavar="NAME", help='What the model puts before a text, such as "query"; "" for nothing.')
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.npy",
    help="Write one array of numpy, [texts, dimensions] in float32.",
)
def embed(bundle: str, texts: tuple[str, ...], source: Path | None, prompt: str | None, output: Path | None) -> None:
    """Give a vector for each of TEXTS, as a line of JSON.

    Texts that mean the same have vectors that point the same way. What is longer than the model reads loses its end,
    with a warning.

    \b
    Example:
      edgewise embed minilm.edge "A cat sleeps." "A dog barks."
      edgewise embed minilm.edge --file passages.txt -o passages.npy
    """
    from edgewise.runtime.encoder import Encoder

    if output and output.suffix != ".npy":
        raise click.UsageError(f"Option '-o': '{output}' does not end in .npy.")
    given = given_texts(texts, source)
    with Encoder.open(bundle) as encoder:
        vectors = encoder.embed(given, prompt=prompt)
    if output:
        _write(output, vectors)
        return
    for text, vector in zip(given, vectors, strict=True):
        click.echo(json.dumps({"text": text, "embedding": [float(f"{x:.9g}") for x in vector]}, ensure_ascii=False))


def _write(path: Path, vectors: "Floats") -> None:
    """The array, there whole or not at all."""
    import numpy as np

    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            np.save(file, vectors)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    click.echo(f"{path}: {vectors.shape[0]:,} vectors of {vectors.shape[1]:,} numbers")
