"""sdk, runtime: execution providers as a bundle names them: built into ONNX Runtime, or in a vendor's library.

A library is registered once in a process, and finds the devices that it can use; a session is given one of them.
"""

from collections.abc import Sequence
from importlib import import_module
from threading import Lock
from typing import Any

from edgewise.bundle.manifest import CPU, Provider
from edgewise.errors import MissingDevice, OptionError, TargetError
from edgewise.extras import require_library
from edgewise.names import CUDA, check_options
from edgewise.options import known
from edgewise.runtime.library import first_line, onnxruntime

# Without this a session of a library's provider gives the nodes that it does not take to the CPU, and says nothing.
NO_FALLBACK = {"session.disable_cpu_ep_fallback": "1"}

ALREADY = "already registered"  # by the program that we are part of, say

_registered: set[str] = set()
_preloaded: set[str] = set()
_lock = Lock()


def check(providers: Sequence[Provider]) -> None:
    """Raises MissingExtra or MissingDevice for a provider that is not installed, or finds no device of its kind.

    TargetError for an option that a bundle may not set.
    """
    for provider in providers:
        try:
            check_options(provider)
        except OptionError as error:
            raise TargetError(str(error)) from error
        if provider.library:
            find_device(provider)
        else:
            _check_built_in(provider)


def configure(options: Any, providers: Sequence[Provider]) -> list[tuple[str, dict[str, str]]]:
    """Prepare session options for these providers; what an `InferenceSession` is given of them beside.

    Where one is in a library, all are given by device, and the CPU takes what they leave only if it is one of them.
    Raises as `check`.
    """
    check(providers)
    if not any(provider.library for provider in providers):
        _preload(providers)
        return [(provider.name, dict(provider.options)) for provider in providers]
    for provider in providers:
        options.add_provider_for_devices([find_device(provider)], dict(provider.options))
    if CPU.name not in {provider.name for provider in providers}:
        for key, value in NO_FALLBACK.items():
            options.add_session_config_entry(key, value)
    return []


def find_device(provider: Provider) -> Any:
    """The first `OrtEpDevice` of a provider that is of the kind it asks for."""
    if provider.library:
        _register(provider)
    found = [device for device in onnxruntime.get_ep_devices() if device.ep_name == provider.name]
    for device in found:
        if provider.device in ("", device.device.type.name.lower()):
            return device
    wanted = f"'{provider.device}' device" if provider.device else "device"
    there = known({device.device.type.name.lower() for device in found}) if found else "none"
    raise MissingDevice(f"{provider.name} finds no {wanted} here that it can use; it finds: {there}")


def is_processor(provider: Provider) -> bool:
    """Whether the device of a provider, which is there, is a processor."""
    return not provider.library or find_device(provider).device.type.name == "CPU"


def _register(provider: Provider) -> None:
    with _lock:
        if provider.library in _registered:
            return
        path = _library_path(provider)
        try:
            onnxruntime.register_execution_provider_library(provider.name, path)
        except Exception as error:
            if ALREADY not in str(error):
                raise MissingDevice(f"the library of {provider.name} does not load: {first_line(error)}") from error
        _registered.add(provider.library)


def _library_path(provider: Provider) -> str:
    require_library(provider)
    find = getattr(import_module(provider.library), "get_library_path", None)
    if find is None:
        raise TargetError(f"the package {provider.library} has no library of {provider.name}: no get_library_path()")
    return str(find())


def _check_built_in(provider: Provider) -> None:
    available = onnxruntime.get_available_providers()
    if provider.name not in available:
        mend = (
            f"install it with: pip install 'edgewise[{provider.extra}]'"
            if provider.extra
            else "install the onnxruntime of that device"
        )
        raise MissingDevice(f"the bundle runs on {provider.name}, and this onnxruntime has: {known(available)}; {mend}")


def _preload(providers: Sequence[Provider]) -> None:
    """Load the libraries of CUDA that pip installed, which are on no path; once, before the first session."""
    if CUDA in {provider.name for provider in providers} and CUDA not in _preloaded:
        onnxruntime.preload_dlls()
        _preloaded.add(CUDA)
