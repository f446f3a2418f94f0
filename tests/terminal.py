"""tests: a command in a terminal, with somebody at its keyboard."""

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from select import select

SIGINT = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # whatever the tests were started by
CODE = f"{SIGINT}; import os; os.login_tty(0); from edgewise.cli.main import main; main()"
CTRL_C, CTRL_D = b"\x03", b"\x04"


@dataclass
class Terminal:
    """A command in a terminal of its own: what it shows, and keys for it."""

    keyboard: int
    child: "subprocess.Popen[bytes]"
    shown: bytes = b""

    def read(self, text: bytes, *, seconds: float = 60) -> None:
        """Wait until the text is shown. Raises TimeoutError."""
        while text not in self.shown:
            if not select([self.keyboard], [], [], seconds)[0]:
                raise TimeoutError(f"{text!r} is not in {self.shown!r}")
            self.shown += os.read(self.keyboard, 4096)
        self.shown = self.shown.partition(text)[2]

    def press(self, key: bytes, *, until: bytes) -> None:
        """Press a key until a text is shown: readline can miss a Ctrl-C in the moment before it waits for keys."""
        for _ in range(30):
            os.write(self.keyboard, key)
            with suppress(TimeoutError):
                self.read(until, seconds=2)
                return
        raise TimeoutError(f"{until!r} is not in {self.shown!r}")


@contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    keyboard, screen = pty.openpty()
    command = [sys.executable, "-c", CODE, *arguments]
    with subprocess.Popen(command, stdin=screen, stdout=screen, stderr=screen) as child:
        os.close(screen)
        try:
            yield Terminal(keyboard, child)
        finally:
            child.kill()
            os.close(keyboard)
