"""sdk, cli: `verify`: is a bundle what was built?"""

import click

from edgewise.cli.output import json_option, print_json, size


@click.command()
@click.argument("bundle")
@json_option
def verify(bundle: str, as_json: bool) -> None:
    """Check that a bundle is what was built: every file, byte by byte.

    The tokenizer and the chat template are also parsed, in a process of their own.

    \b
    Example:
      edgewise verify pycoder.edge
    """
    from edgewise.bundle.read import verify

    files = verify(bundle).manifest.files
    total = sum(file.bytes for file in files.values())
    if as_json:
        print_json({"bundle": bundle, "files": len(files), "bytes": total, "intact": True})
    else:
        click.echo(f"{bundle}: {len(files)} files, {size(total)}, all as they were built")
