"""sdk, cli: `edgewise`, the command line: its commands, and the one place where an error becomes a line."""

import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from edgewise._version import __version__
from edgewise.cli.bench import bench
from edgewise.cli.build import build
from edgewise.cli.cascade import cascade
from edgewise.cli.chat import chat
from edgewise.cli.classify import classify
from edgewise.cli.compare import compare
from edgewise.cli.embed import embed
from edgewise.cli.eval import evaluate
from edgewise.cli.export import export
from edgewise.cli.inspect import inspect
from edgewise.cli.lint import lint
from edgewise.cli.listings import exporters, passes, processors, scalers, searches, stop_rules, verifiers
from edgewise.cli.output import talk
from edgewise.cli.plan import plan
from edgewise.cli.plugins import plugins
from edgewise.cli.probe import probe
from edgewise.cli.run import run
from edgewise.cli.score import score
from edgewise.cli.seldom import load_seldom_ones_late
from edgewise.cli.targets import targets
from edgewise.cli.tasks import report
from edgewise.cli.verify import verify
from edgewise.errors import EdgewiseError, PluginError
from edgewise.extras import extras
from edgewise.options import unknown
from edgewise.registry import Registry, registry

COMMANDS = {
    "Make a bundle": (plan, probe, build, export),
    "Run it": (run, chat, score, embed, classify, bench, cascade),
    "Look at it": (inspect, verify, lint, evaluate, report, compare),
    "See what is installed": (
        targets,
        passes,
        exporters,
        searches,
        processors,
        stop_rules,
        scalers,
        verifiers,
        plugins,
    ),
}


class Group(click.Group):
    """The commands under headings, in the order of work."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands and not args[0].startswith("-"):
            ctx.fail(unknown("command", args[0], self.commands))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own = {command for commands in COMMANDS.values() for command in commands}
        added = tuple(command for command in self.commands.values() if command not in own)
        for heading, commands in (COMMANDS | {"Added by plugins": added}).items():
            if rows := [(str(c.name), c.get_short_help_str(100)) for c in commands]:
                with formatter.section(heading):
                    formatter.write_dl(rows)


def command_line(installed: Registry) -> Group:
    """The group of all commands: ours, and those that plugins add."""
    group = Group(
        "edgewise",
        help="Packs a language model for the device it has to run on.",
        epilog="\b\nExample:\n  edgewise build examples/pycoder --target cpu-x64 -o pycoder.edge"
        '\n  edgewise run pycoder.edge "def read_json("',
    )
    click.version_option(__version__, message="%(prog)s %(version)s")(group)
    owners = {}
    for command in (command for commands in COMMANDS.values() for command in commands):
        group.add_command(command)
        owners[str(command.name)] = "edgewise"
    for owner, hook in installed.command_hooks():
        theirs = click.Group()
        try:
            hook(cli=theirs)
        except (Exception, SystemExit) as error:
            installed.report(owner, f"register_commands() failed: {type(error).__name__}: {error}")
        for name, command in theirs.commands.items():
            if name in owners:
                command = _clash(installed, name, owners[name], owner)
            owners[name] = owner
            group.add_command(command, name)
    return group


def execute(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, 1 for an error, 2 for wrong usage, 130 for Ctrl-C and SIGTERM."""
    try:
        with extras():
            result = command_line(registry()).main(arguments, prog_name="edgewise", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 130
    except BrokenPipeError:  # the reader has gone: whatever is left to print goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except EdgewiseError as error:
        return _fail(str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}")
    return result if isinstance(result, int) else 0


def main() -> NoReturn:
    """What the installed command `edgewise` calls."""
    load_seldom_ones_late()
    logger = logging.getLogger("edgewise")
    logger.addHandler(_Talk())
    logger.setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a build clears up after itself
    sys.exit(execute())


def _fail(text: str) -> int:
    talk("error: " + " ".join(text.splitlines()))
    return 1


def _clash(installed: Registry, name: str, first: str, second: str) -> click.Command:
    """A command that says whose it is, twice; used in place of one with two owners."""
    owners = " and ".join(sorted((first, second)))
    problem = f"command '{name}' is claimed by {owners}; uninstall one of them to use it"
    installed.problems.append(problem)

    @click.command(name, context_settings={"ignore_unknown_options": True})
    @click.argument("arguments", nargs=-1)
    def refuse(arguments: tuple[str, ...]) -> None:
        raise PluginError(problem)

    return refuse


class _Talk(logging.Handler):
    """Log lines on stderr, past a progress bar. What each step of a recipe changed is in the plan already."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name != "edgewise.steps" or record.levelno > logging.INFO:
            talk(f"warning: {self.format(record)}" if record.levelno > logging.INFO else self.format(record))
