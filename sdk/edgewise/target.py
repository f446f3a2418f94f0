"""sdk: a target: one device as data. `edgewise.profile` reads it from TOML; hardware numbers carry their source."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from edgewise.bundle.manifest import Provider
from edgewise.errors import OptionError
from edgewise.recipe import RecipeStep

Kind = Literal["measured", "published", "estimated"]
Proof = Literal["run", "emulated", "specified"]


@dataclass(frozen=True)
class Number:
    """A figure of the hardware, with where it comes from."""

    value: float
    source: str
    kind: Kind


@dataclass(frozen=True)
class Device:
    """Which device it is."""

    vendor: str = ""
    chip: str = ""  # the processor, accelerator or system on a chip
    arch: str = ""  # instruction set or generation: "avx512-vnni", "sm_90", "hexagon-v73"
    os: tuple[str, ...] = ()
    form: str = ""  # "server", "laptop", "phone", "board", "browser"


@dataclass(frozen=True)
class Efficiency:
    """The share of the peak figures that a decoder gets: of bandwidth when it decodes, of compute in a prompt."""

    decode: Number | None = None
    prefill: Number | None = None


@dataclass(frozen=True)
class Hardware:
    """What the planner holds a bundle against. None: not known, or what the machine at hand has."""

    memory: Number | None = None  # bytes
    usable: Number | None = None  # share of the memory that one process can have
    bandwidth: Number | None = None  # bytes a second, of the memory that holds the weights
    compute: Mapping[str, Number] = field(default_factory=dict)  # by dtype: multiplications and additions a second
    efficiency: Efficiency = Efficiency()
    power: Number | None = None  # watts, under load
    storage: Number | None = None  # bytes a second read from it


@dataclass(frozen=True)
class Numerics:
    """Which number formats the device computes with; what a lint holds a graph against. Empty: not restricted."""

    weights: tuple[str, ...] = ()  # "int4", "int8", "float16", ...
    activations: tuple[str, ...] = ()
    cache: tuple[str, ...] = ()
    io: tuple[str, ...] = ()
    encodings: tuple[str, ...] = ()  # "matmulnbits", "qdq", "matmulinteger"
    block_sizes: tuple[int, ...] = ()
    symmetric: bool | None = None  # None: both are well
    accumulation: str = ""


@dataclass(frozen=True)
class Lengths:
    """Graphs of fixed lengths: tokens that one run of each computes, and tokens that the cache holds."""

    prefill: int = 128
    decode: int = 1


@dataclass(frozen=True)
class Needs:
    """What a graph has to be like."""

    static: Lengths | None = None  # None: dynamic shapes are well
    opset: int | None = None  # the highest
    only: tuple[str, ...] = ()  # operators that may occur, "domain:Operator" where there is a domain; empty: all
    denied: tuple[str, ...] = ()  # operators that may not
    graph_bytes: Number | None = None  # the largest graph with its weights


@dataclass(frozen=True)
class Compile:
    """Compilation ahead of time, on the machine that builds: EPContext models of ONNX Runtime."""

    options: Mapping[str, str] = field(default_factory=dict)  # for the provider, beside its own: "soc_model", ...
    share_weights: bool = False  # graphs of one bundle share a weight file


@dataclass(frozen=True)
class Target:
    """A device, and what a bundle for it looks like."""

    name: str
    description: str
    providers: tuple[Provider, ...]
    proof: Proof = "specified"  # whether bundles for it were run where we test, emulated or compiled, or only specified
    aliases: tuple[str, ...] = ()
    device: Device = Device()
    recipe: tuple[RecipeStep, ...] = ()  # what is done unless the user's own recipe replaces it
    calibrated: tuple[RecipeStep, ...] = ()  # what follows any recipe where there is a calibration text
    lowering: tuple[RecipeStep, ...] = ()  # the dialect of this device
    context: int = 4096  # tokens that a session gets unless it asks for more or fewer
    threads: int | None = None  # of a session; None: as many as there are cores
    hardware: Hardware = Hardware()
    numerics: Numerics = Numerics()
    needs: Needs = Needs()
    compile: Compile | None = None
    session: Mapping[str, str] = field(default_factory=dict)  # session configuration entries of ONNX Runtime

    def __post_init__(self) -> None:
        if self.context < 1:
            raise OptionError(f"context: {self.context} is not 1 or more")
        if not self.providers:
            raise OptionError("providers: none is given; one is CPUExecutionProvider")
