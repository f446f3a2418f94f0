"""sdk, confined: the process that confines itself, and then becomes what is to be run.

`python -m edgewise.confined.child FOLDER`: JSON of the limits and of what to run on stdin. Nothing heavy is imported:
a filter of system calls holds for the threads that come after it.
"""

import json
import math
import os
import resource
import sys
from pathlib import Path
from typing import Any

from edgewise.confined import landlock, seccomp

NOT_CONFINED = 125  # exit code: nothing was run
SYSTEM = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/dev/null", "/dev/urandom")


def main(folder: Path) -> None:
    asked = json.load(sys.stdin)
    os.chdir(folder)
    command = asked.get("command")
    try:
        _bound(asked["seconds"], asked["memory"], asked["written"])
        pythons = [Path(sys.prefix), Path(sys.base_prefix)]
        readable = [Path("/")] if command else [*pythons, *map(Path, SYSTEM)]
        landlock.restrict(readable=readable, writable=[folder])
        seccomp.restrict(processes=bool(command))
    except OSError as error:
        print(error, file=sys.stderr)
        sys.exit(NOT_CONFINED)
    if command:
        _become(command, asked["given"])
    else:
        _run(asked["program"])


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


def _run(program: str) -> None:
    """A program of Python, in this process: no other one can be started."""
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(program, "program.py", "exec"), scope)


def _become(command: list[str], given: str) -> None:
    """A tool of the user's, with its input on stdin."""
    path = Path("given.json")
    path.write_text(given, "utf-8")
    os.dup2(os.open(path, os.O_RDONLY), 0)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
