"""sdk, confined: runs a program, or a tool, with limits: a process of its own, in a folder of its own."""

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from edgewise.confined.limits import DEFAULT, Limits
from edgewise.errors import OptionError

KEPT = 1 << 16  # bytes of what it prints


@dataclass(frozen=True)
class Outcome:
    """How a program ended. It has passed where it came to its end; a tool, where it ended with code 0."""

    passed: bool
    code: int | None  # None: it took too long
    said: str
    complained: str  # on stderr

    @property
    def why(self) -> str:
        """In a line, what ended it; empty where it passed."""
        if self.passed:
            return ""
        if self.code is None or -self.code in (signal.SIGXCPU, signal.SIGKILL):
            return "it took too long"
        if self.code < 0:
            return f"it was ended by {signal.Signals(-self.code).name}"
        lines = self.complained.strip().splitlines()
        return lines[-1] if lines else f"it ended with code {self.code}, before its end"


def run_program(*parts: str, limits: Limits = DEFAULT) -> Outcome:
    """Run a text of Python that nobody vouches for, part after part: the program, then its tests.

    It can read Python's own files, write in a folder that is removed after it, and start no process; it has no
    network. Raises OptionError where a system cannot confine it: it is never run unconfined.
    """
    token = secrets.token_hex(16)
    return _run({"parts": parts, "token": token}, limits, token)


def run_tool(command: Sequence[str], given: str, *, limits: Limits = DEFAULT) -> Outcome:
    """Run a tool of the user's on what nobody vouches for: it is given on stdin.

    The tool can read all files and start processes; it writes only in a folder that is removed after it, and has no
    network. Raises OptionError also where it cannot be started.
    """
    return _run({"command": list(command), "given": given}, limits, None)


def _run(what: dict[str, Any], limits: Limits, token: str | None) -> Outcome:
    if not sys.platform.startswith("linux"):
        raise OptionError("programs of a model run confined, which takes Linux 6.2 or later; they are not run here")
    with tempfile.TemporaryDirectory(prefix="edgewise-", ignore_cleanup_errors=True) as folder:
        code, reported, said, complained = _ended(json.dumps({**what, **asdict(limits)}), folder, limits.seconds)
    first, *rest = [*reported.splitlines(), ""]
    if first.startswith("not confined"):
        why = first.partition(": ")[2]
        raise OptionError(f"programs of a model run confined, which this system cannot do: {why}")
    if token is None and rest[0].startswith("not started"):
        raise OptionError(f"{what['command'][0]} cannot be run: {rest[0].partition(': ')[2]}")
    passed = code == 0 and first == "confined" and (token is None or token in rest)
    return Outcome(passed, code, said, complained)


def _ended(given: str, folder: str, seconds: float) -> tuple[int | None, str, str, str]:
    """The exit code, what was reported, and what was printed."""
    reading, writing = os.pipe()
    command = [sys.executable, "-P", "-m", "edgewise.confined.child", folder, str(writing)]
    environment = {key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ}
    with open(f"{folder}/said", "w+b") as said, open(f"{folder}/complained", "w+b") as complained:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=complained,
            env=environment,
            start_new_session=True,
            pass_fds=(writing,),
        )
        os.close(writing)
        code: int | None = None
        try:
            child.communicate(given.encode(), timeout=seconds)
            code = child.returncode
        except subprocess.TimeoutExpired:
            pass
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # what a tool has left behind, too
            child.wait()
        with open(reading, "rb") as report:
            reported = report.read(KEPT).decode("utf-8", "replace")
        return code, reported, _text(said), _text(complained)


def _text(file: Any) -> str:
    """The end of what was printed."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - KEPT))
    return str(file.read().decode("utf-8", "replace"))
