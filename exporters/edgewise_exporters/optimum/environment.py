"""exporters, optimum: the Python that has optimum-onnx: the one that a variable names, or the one that is running."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgewise.errors import OptionError

VARIABLE = "EDGEWISE_OPTIMUM_PYTHON"
RELEASE = "optimum-onnx 0.1.0"
VERSIONS = {"optimum-onnx": "0.1", "optimum": "2.1", "transformers": "4.57", "onnxruntime": "1", "torch": "2"}
FOLDER = "~/.edgewise-optimum"
MAKE = (
    f"python3 -m venv {FOLDER} && {FOLDER}/bin/pip install torch 'optimum-onnx[onnxruntime]==0.1.0' 'transformers<4.58'"
    f" && export {VARIABLE}={FOLDER}/bin/python"
)
ASK = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps(found))
"""
ASK_S = 60
KEPT = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "PATH", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR")


@dataclass(frozen=True)
class Python:
    """A Python that can export, and the versions of the packages that it does that with."""

    path: Path
    versions: Mapping[str, str]

    def __str__(self) -> str:
        return ", ".join(f"{name} {self.versions[name]}" for name in ("torch", "transformers", "optimum-onnx"))


def find_python() -> Python:
    """The one to export with. Raises OptionError, with the line that makes one, where there is none."""
    named = os.environ.get(VARIABLE)
    path = Path(named).expanduser() if named else Path(sys.executable)
    versions = _versions(path)
    if wrong := _wrong(versions):
        whose = f"{VARIABLE} ({path})" if named else "this Python"
        raise OptionError(f"{RELEASE} needs a Python of its own, and {whose} {wrong}; to make one: {MAKE}")
    return Python(path, versions)


def _versions(path: Path) -> dict[str, str]:
    """The versions of those packages that are installed there. Raises OptionError for what is no Python."""
    try:
        asked = subprocess.run(
            [path, "-I", "-c", ASK, *VERSIONS],
            capture_output=True,
            text=True,
            timeout=ASK_S,
            env=environment(),
            check=True,
        )
        return {str(name): str(version) for name, version in dict(json.loads(asked.stdout)).items()}
    except (OSError, subprocess.SubprocessError, TypeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it does not run as a Python"
        raise OptionError(f"{VARIABLE} is {path}: {reason}; to make one that exports: {MAKE}") from error


def _wrong(versions: Mapping[str, str]) -> str:
    """What is missing, or of another version than the graphs were tested with; empty: nothing."""
    for name, wanted in VERSIONS.items():
        if name not in versions:
            return f"has no {name}"
        if not f"{versions[name]}.".startswith(f"{wanted}."):
            return f"has {name} {versions[name]}, where {wanted} is needed"
    return ""


def environment() -> dict[str, str]:
    """Of the variables of this process those that another Python needs: no tokens, no paths to packages."""
    return {key: value for key, value in os.environ.items() if key in KEPT}


def missing() -> str:
    """Why nothing can be exported here, in a line; empty where it can."""
    try:
        find_python()
    except OptionError as error:
        return str(error)
    return ""
