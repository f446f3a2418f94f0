"""docs: writes cli.md, the reference of the command line, from what `--help` says."""

from pathlib import Path

import click

from edgewise.cli.main import command_line
from edgewise.registry import Registry

PAGE = Path(__file__).with_name("cli.md")


def page() -> str:
    """The whole reference, with the commands that come with edgewise."""
    group = command_line(Registry([]))
    texts = [_help(group, "edgewise")]
    for name, command in group.commands.items():
        texts.append(_help(command, f"edgewise {name}"))
        if isinstance(command, click.Group):
            texts += [_help(below, f"edgewise {name} {word}") for word, below in command.commands.items()]
    head = "# Command line\n\nWritten by `python docs/generate_cli.py` from what `--help` says.\n\n"
    foot = (
        "Data goes to stdout, all else to stderr. The exit code is 0, or 1 for an error (one line on stderr), 2 for "
        "wrong usage,\n130 for Ctrl-C.\n"
    )
    return head + "".join(texts) + foot


def _help(command: click.Command, name: str) -> str:
    context = click.Context(command, info_name=name, terminal_width=100, max_content_width=100)
    return f"## {name}\n\n```\n{command.get_help(context)}\n```\n\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
