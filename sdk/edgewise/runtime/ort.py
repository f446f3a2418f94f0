"""sdk, runtime: ONNX Runtime as a bundle needs it: no telemetry, no options from a model, no silent fallback."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgewise.bundle.manifest import CPU, Provider
from edgewise.errors import BundleError, MissingDevice, OptionError, TargetError
from edgewise.names import check_session
from edgewise.options import known
from edgewise.runtime.element import BFLOAT16, BITS
from edgewise.runtime.exact import exact_products
from edgewise.runtime.library import first_line, onnxruntime
from edgewise.runtime.providers import configure
from edgewise.runtime.threads import physical_cores

REFUSED = "fallback to CPU EP has been explicitly disabled"
FATAL = 4  # its own log repeats on stderr what the exception says


def open_graph(
    path: Path,
    *,
    providers: Sequence[Provider] = (CPU,),
    threads: int | None = None,
    entries: Mapping[str, str] | None = None,
) -> Any:
    """An `onnxruntime.InferenceSession` on exactly these providers.

    The CPU takes what those that are built in leave; what those of a vendor's library leave, only where it is named.
    Raises TargetError or MissingExtra for a provider that is not there, BundleError for a graph that does not load.
    """
    os.environ.pop("ORT_LOAD_CONFIG_FROM_MODEL", None)  # it would let a model set session options
    options = _session_options(threads, entries or {})
    built_in = configure(options, providers)
    try:
        session = onnxruntime.InferenceSession(os.fspath(path), options, built_in, enable_fallback=0)
    except Exception as error:
        if REFUSED in str(error):
            wanted = known(provider.name for provider in providers)
            raise TargetError(f"{path}: {wanted} does not take all of its nodes, and no other may") from error
        raise BundleError(f"{path}: {first_line(error)}") from error
    if missing := {provider.name for provider in providers} - set(session.get_providers()):
        raise MissingDevice(f"{path}: {known(missing)} did not start; running: {known(session.get_providers())}")
    return session


def in_place(array: NDArray[Any]) -> Any:
    """An `OrtValue` on the memory of an array, which must outlive it: what is written there later is seen."""
    if array.dtype == BITS:
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array, BFLOAT16)
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def _session_options(threads: int | None, entries: Mapping[str, str]) -> Any:
    if threads is not None and threads < 1:
        raise OptionError(f"threads is {threads}; it must be 1 or more")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = physical_cores() if threads is None else threads
    options.inter_op_num_threads = 1
    options.log_severity_level = FATAL
    options.enable_mem_pattern = False  # a plan for each length would be kept; as fast, and less memory, without
    try:
        check_session(entries)
    except OptionError as error:
        raise TargetError(str(error)) from error
    for key, value in {**exact_products(), **entries}.items():
        options.add_session_config_entry(key, value)
    return options
