"""sdk: the names that a profile may use, of ONNX Runtime 1.31: execution providers, session entries, operators."""

import difflib
import json
import re
import tomllib
from collections.abc import Collection, Iterable
from functools import cache
from importlib.resources import files
from typing import Any

from edgewise.bundle.manifest import Provider
from edgewise.errors import OptionError
from edgewise.options import known, unknown

FILES = re.compile("path|file|folder|lib|dir|dump|saver|^ep[.]context", re.IGNORECASE)  # in names of what reaches files
BACKENDS = ("cpu", "gpu", "htp")  # of QNN; others write files


@cache
def _found() -> dict[str, Any]:
    return tomllib.loads(files("edgewise").joinpath("names.toml").read_text("utf-8"))


@cache
def names() -> dict[str, frozenset[str]]:
    """By kind: providers, session, operators (those of com.microsoft with their domain)."""
    found = _found()
    contrib = {f"com.microsoft:{name}" for name in found["contrib"]}
    operators = frozenset(found["standard"]) | contrib
    return {"providers": frozenset(found["providers"]), "session": frozenset(found["session"]), "operators": operators}


def check_provider(provider: Provider) -> None:
    """Raises OptionError for a provider that ONNX Runtime does not have, and that no library brings; or its options."""
    if not provider.library and provider.name not in names()["providers"]:
        raise OptionError(f"providers: {unknown('provider', provider.name, names()['providers'])}")
    check_options(provider)


def check_options(provider: Provider) -> None:
    """Raises OptionError for an option that reaches a file, a library or an address.

    A bundle's are anybody's, and a provider loads, reads, writes and calls what they name.
    """
    allowed = _found()["options"].get(provider.name) if provider.options else None
    for name, value in provider.options.items():
        problem = f"{provider.name}: a bundle may not set its option '{name}'"
        if allowed is not None and name not in allowed:
            raise OptionError(f"{problem}; it may set: {known(allowed)}")
        if allowed is None and FILES.search(name):
            raise OptionError(f"{problem}, which names a file")
        if (name == "load_config" and not _is_plain(value)) or (name == "backend_type" and value not in BACKENDS):
            raise OptionError(f"{problem} to {value!r}: it would name, read or write a file")


def _is_plain(config: str) -> bool:
    """Whether the settings of OpenVINO are a table in JSON, none of which names a file."""
    try:
        return isinstance(json.loads(config), dict) and not FILES.search(config)
    except (ValueError, RecursionError):
        return False


def check_operators(asked: Iterable[str], *, what: str) -> None:
    """Raises OptionError for an operator that is not known; those of other domains are not ours to know."""
    for name in asked:
        domain, _, operator = name.rpartition(":")
        elsewhere = domain and operator and domain != "com.microsoft"
        if name not in names()["operators"] and not elsewhere:
            raise OptionError(f"{what}: {_no('operator', name, names()['operators'], 'com.microsoft:MatMulNBits')}")


def check_session(asked: Iterable[str]) -> None:
    """Raises OptionError for an entry that ONNX Runtime would leave unread, without a word."""
    for name in asked:
        if FILES.search(name):
            raise OptionError(f"session: a bundle may not set the session entry '{name}', which names a file")
        if name not in names()["session"] and not name.startswith("ep."):
            raise OptionError(f"session: {_no('session entry', name, names()['session'], 'ep.cuda.fpa_intb_gemm')}")


def _no(kind: str, name: str, known: Collection[str], example: str) -> str:
    """One line with the closest that there are: all of them would be some hundred."""
    close = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    return f"no {kind} is named {name!r}; {'did you mean ' + ', '.join(close) + '?' if close else f'one is {example}'}"
