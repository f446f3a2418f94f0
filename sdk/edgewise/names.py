"""sdk: the names that a profile may use, of ONNX Runtime 1.31: execution providers, session entries, operators."""

import difflib
import itertools
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

CUDA = "CUDAExecutionProvider"
DIRECTML = "DmlExecutionProvider"
WEBGPU = "WebGpuExecutionProvider"

# Words in the names of what reaches files, code or addresses: options of providers that we do not know.
REACHES = re.compile(
    "path|file|folder|lib|dir|dump|saver|alloc|compute_stream|package|plugin|^ep[.]context", re.IGNORECASE
)
PLAIN = re.compile(r"[^/\\\0]*")  # values that are no path
DEVICES = re.compile(r"(CPU|GPU|NPU|AUTO|HETERO|MULTI)(\.\d+)?")  # of OpenVINO
BUILT_IN = "ExecutionProvider"  # what names of ONNX Runtime's own end with
LOAD_CONFIG = "load_config"  # of OpenVINO


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
    """Raises OptionError for an option that a bundle may not set: what it says is anybody's.

    A provider loads, reads, writes and calls what its options name. So of those that ONNX Runtime has only the options
    that are listed may be set; of others, which a library brings, those whose names do not say that they reach files.
    """
    for name, value in provider.options.items():
        problem = f"{provider.name}: a bundle may not set its option '{name}'"
        allowed = _allowed(provider)
        if allowed is not None and name not in allowed:
            raise OptionError(f"{problem}; it may set: {known(allowed)}")
        if allowed is None and REACHES.search(name):
            raise OptionError(f"{problem}, which may reach files or code")
        values = _found()["values"].get(name)
        if values and value not in values:
            raise OptionError(f"{problem} to {value!r}; it may be: {known(values)}")
        if not (_is_harmless(value) if name == LOAD_CONFIG else PLAIN.fullmatch(value)):
            raise OptionError(f"{problem} to {value!r}: it would name, read or write a file")


def _allowed(provider: Provider) -> Collection[str] | None:
    """The options that may be set; None where nobody here knows the provider."""
    name = provider.name.partition(".")[0]  # OpenVINOExecutionProvider.AUTO
    ours = not provider.library or name in names()["providers"]
    found: Collection[str] | None = _found()["options"].get(name, () if ours else None)
    return found


def _is_harmless(config: str) -> bool:
    """Whether settings of OpenVINO, in JSON, are properties that are listed, of devices.

    Objects are read as tuples of pairs: so a key that is there twice is seen twice.
    """
    try:
        devices = json.loads(config, object_pairs_hook=tuple)
    except (ValueError, RecursionError):
        return False
    return isinstance(devices, tuple) and all(
        DEVICES.fullmatch(device) and isinstance(settings, tuple) and all(itertools.starmap(_is_property, settings))
        for device, settings in devices
    )


def _is_property(name: str, value: object) -> bool:
    plain = isinstance(value, int | float) or (isinstance(value, str) and PLAIN.fullmatch(value) is not None)
    return plain and name in _found()["openvino"]


def check_operators(asked: Iterable[str], *, what: str) -> None:
    """Raises OptionError for an operator that is not known; those of other domains are not ours to know."""
    for name in asked:
        domain, _, operator = name.rpartition(":")
        elsewhere = domain and operator and domain != "com.microsoft"
        if name not in names()["operators"] and not elsewhere:
            raise OptionError(f"{what}: {_no('operator', name, names()['operators'], 'com.microsoft:MatMulNBits')}")


def check_session(asked: Iterable[str]) -> None:
    """Raises OptionError for an entry that ONNX Runtime would leave unread, without a word, or that reaches files.

    `ep.qnnexecutionprovider.backend_type` is an option of a provider: entries of those that we know are listed.
    """
    for name in asked:
        if name in names()["session"]:
            continue
        if not name.startswith("ep."):
            raise OptionError(f"session: {_no('session entry', name, names()['session'], 'ep.cuda.fpa_intb_gemm')}")
        _, vendor, option = (*name.split(".", 2), "")[:3]
        if not option or vendor.lower() in _vendors() or REACHES.search(name):
            raise OptionError(f"session: a bundle may not set the session entry '{name}', which may reach files")


@cache
def _vendors() -> frozenset[str]:
    """What entries of the providers that we know begin with, after "ep."."""
    long = {name.lower() for name in names()["providers"]}
    return frozenset(long | {name.removesuffix(BUILT_IN.lower()) for name in long})


def _no(kind: str, name: str, known: Collection[str], example: str) -> str:
    """One line with the closest that there are: all of them would be some hundred."""
    close = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    return f"no {kind} is named {name!r}; {'did you mean ' + ', '.join(close) + '?' if close else f'one is {example}'}"
