"""sdk: modules of ours that run in a process of their own, because what they read or load could end it."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

QUIET = {"TOKENIZERS_PARALLELISM": "false"}  # else tokenizers warns of the fork


@dataclass(frozen=True)
class Ended:
    """A process that has ended: its exit code, and what it has written."""

    code: int  # below 0: a signal ended it
    said: str
    complained: str  # on stderr

    @property
    def signal(self) -> str:
        """What ended it: `SIGSEGV`; empty where it came to its end."""
        return signal.Signals(-self.code).name if self.code < 0 else ""


def run(
    module: str, *arguments: str, given: str = "", seconds: float, environment: Mapping[str, str] | None = None
) -> Ended:
    """Run `python -m module` to its end; `given` is its stdin. Raises TimeoutError when it takes longer."""
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-m", module, *arguments],
            input=given,
            capture_output=True,
            encoding="utf-8",
            errors="replace",  # what vendors' libraries print may be no text
            timeout=seconds,
            env=os.environ | QUIET if environment is None else environment,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"{module} took more than {seconds:,g} s") from None
    return Ended(child.returncode, child.stdout, child.stderr)
