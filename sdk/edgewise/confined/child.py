"""sdk, confined: the process that confines itself, and then becomes what is to be run.

`python -m edgewise.confined.child FOLDER FILE-DESCRIPTOR`: JSON of the limits and of what to run on stdin. What comes
of it is reported on the file descriptor, line by line. Nothing heavy is imported: a filter of system calls holds for
the threads that come after it.
"""

import json
import math
import os
import resource
import sys
from pathlib import Path
from typing import Any, TextIO

from edgewise.confined import landlock, seccomp

SYSTEM = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/dev/urandom")


def main(folder: Path, report: TextIO) -> None:
    asked = json.load(sys.stdin)
    os.chdir(folder)
    command = asked.get("command")
    try:
        _bound(asked["seconds"], asked["memory"], asked["written"])
        pythons = [Path(sys.prefix), Path(sys.base_prefix)]
        readable = [Path("/")] if command else [*pythons, *map(Path, SYSTEM)]
        landlock.restrict(readable=readable, writable=[folder, Path("/dev/null")])
        seccomp.restrict(processes=bool(command))
    except OSError as error:
        report.write(f"not confined: {error}\n")
        sys.exit(1)
    report.write("confined\n")
    if command:
        _become(command, asked["given"], report)
    else:
        _run(asked["parts"])
        report.write(f"{asked['token']}\n")


def _bound(seconds: float, memory: int, written: int) -> None:
    limits = {
        resource.RLIMIT_CPU: math.ceil(seconds),
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_FSIZE: written,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    for limit, bound in limits.items():
        resource.setrlimit(limit, (bound, bound))


def _run(parts: list[str]) -> None:
    """Parts of a program of Python one after the other, in this process: no other one can be started.

    One that ends with exit code 0 is followed by the next one.
    """
    scope: dict[str, Any] = {"__name__": "__main__"}
    for number, part in enumerate(parts, 1):
        try:
            exec(compile(part, f"part {number}", "exec"), scope)
        except SystemExit as end:
            if number == len(parts) or end.code not in (None, 0):
                raise


def _become(command: list[str], given: str, report: TextIO) -> None:
    """A tool of the user's, with its input on stdin."""
    path = Path("given.json")
    path.write_text(given, "utf-8")
    os.dup2(os.open(path, os.O_RDONLY), 0)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        report.write(f"not started: {error}\n")
        sys.exit(1)


if __name__ == "__main__":
    with open(int(sys.argv[2]), "w", buffering=1) as report:
        main(Path(sys.argv[1]), report)
