"""sdk, confined: runs a program, or a tool, with limits: a process of its own, in a folder of its own."""

import json
import os
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
NOT_CONFINED = 125  # what edgewise.confined.child ends with; importing it takes a Unix


@dataclass(frozen=True)
class Outcome:
    """How a program ended."""

    code: int | None  # None: it took too long
    said: str
    complained: str  # on stderr

    @property
    def passed(self) -> bool:
        return self.code == 0

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
        return lines[-1] if lines else f"it ended with code {self.code}"


def run_program(program: str, *, limits: Limits = DEFAULT) -> Outcome:
    """Run a text of Python that nobody vouches for.

    It can read Python's own files, write in a folder that is removed after it, and start no process; it has no
    network. Raises OptionError where a system cannot confine it: it is never run unconfined.
    """
    return _run({"program": program}, limits)


def run_tool(command: Sequence[str], given: str, *, limits: Limits = DEFAULT) -> Outcome:
    """Run a tool of the user's on what nobody vouches for: it is given on stdin.

    The tool can read all files and start processes; it writes only in a folder that is removed after it, and has no
    network.
    """
    return _run({"command": list(command), "given": given}, limits)


def _run(what: dict[str, Any], limits: Limits) -> Outcome:
    if not sys.platform.startswith("linux"):
        raise OptionError("programs of a model run confined, which takes Linux 5.13 or later; they are not run here")
    with tempfile.TemporaryDirectory(prefix="edgewise-", ignore_cleanup_errors=True) as folder:
        outcome = _ended(json.dumps({**what, **asdict(limits)}), folder, limits.seconds)
    if outcome.code == NOT_CONFINED:
        why = outcome.complained.strip()
        raise OptionError(f"programs of a model run confined, which this system cannot do: {why}")
    return outcome


def _ended(given: str, folder: str, seconds: float) -> Outcome:
    command = [sys.executable, "-P", "-m", "edgewise.confined.child", folder]
    environment = {key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ}
    with (
        open(os.path.join(folder, "said"), "w+b") as said,
        open(os.path.join(folder, "complained"), "w+b") as complained,
    ):
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=said, stderr=complained, env=environment, start_new_session=True
        )
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
        return Outcome(code, _text(said), _text(complained))


def _text(file: Any) -> str:
    """The end of what was printed."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - KEPT))
    return str(file.read().decode("utf-8", "replace"))
