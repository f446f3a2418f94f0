"""exporters, decoder, families: one file per family, named by its model_type."""

from importlib import import_module
from pkgutil import iter_modules

from edgewise_exporters.decoder.family import Family

_MODULES = (import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__))
FAMILIES: dict[str, Family] = {module.FAMILY.model_type: module.FAMILY for module in _MODULES}
