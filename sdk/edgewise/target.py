"""sdk: a target: one device as data. `edgewise.profile` reads it from TOML; hardware numbers carry their source."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from edgewise.bundle.manifest import CPU, Provider
from edgewise.errors import OptionError
from edgewise.names import check_operators, check_options, check_provider, check_session
from edgewise.recipe import RecipeStep

Kind = Literal["measured", "published", "estimated"]
Proof = Literal["run", "emulated", "specified"]
System = Literal["linux", "windows", "macos", "android", "ios", "web"]
Form = Literal["server", "desktop", "laptop", "phone", "board", "browser"]
DType = Literal[
    "float32", "float16", "bfloat16", "float8", "float4",
    "int64", "int32", "int16", "uint16", "int8", "uint8", "int4", "int2",
]  # fmt: skip
Encoding = Literal["matmulnbits", "matmulinteger", "qdq"]

OPSETS = range(7, 27)  # ONNX Runtime 1.31 refuses what is newer
BLOCKS = (0, *(1 << power for power in range(4, 11)))
KERNEL = "attention, or a format with what shares a scale: 'int4 block 128', 'int8 rows', 'float32'"

_NAME = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")
_KERNEL = re.compile(r"attention|(float32|float16|bfloat16|float8|float4|int8|int4|int2)( rows| block \d+)?")


@dataclass(frozen=True)
class Number:
    """A figure of the hardware, with where it comes from."""

    value: float  # above 0
    source: str  # where it was published, what was measured, or how it was estimated
    kind: Kind

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and self.value > 0):
            raise OptionError(f"value: {self.value!r} is not a number above 0")
        if not self.source.strip():
            raise OptionError("source: it is empty; name the page, the measurement, or how it was estimated")


@dataclass(frozen=True)
class Device:
    """Which device it is."""

    vendor: str = ""
    chip: str = ""  # processor, accelerator or system on a chip
    arch: str = ""  # instruction set or generation: "avx512-vnni", "sm_90", "hexagon-v73"
    os: tuple[System, ...] = ()
    form: Form | None = None


@dataclass(frozen=True)
class Efficiency:
    """The share of its peak figures that a device reaches, by the format of weights; "any" stands for the rest."""

    decode: Mapping[Literal[DType, "any"], Number] = field(default_factory=dict)  # of bandwidth, one token at a time
    prefill: Mapping[Literal[DType, "any"], Number] = field(default_factory=dict)  # of compute, in a prompt

    def __post_init__(self) -> None:
        for name, shares in (("decode", self.decode), ("prefill", self.prefill)):
            for weights, share in shares.items():
                _check_share(f"{name}.{weights}", share)

    def of(self, step: Literal["decode", "prefill"], weights: str) -> Number | None:
        """The share for weights of a format; None where the profile does not say."""
        shares: Mapping[Any, Number] = self.decode if step == "decode" else self.prefill
        return shares.get(weights) or shares.get("any")


@dataclass(frozen=True)
class Kernel:
    """Operations a second of one kind of product as they were measured (a multiply-add is two)."""

    decode: Number  # one token at a time
    prefill: Number  # hundreds at once


@dataclass(frozen=True)
class Hardware:
    """What the planner holds a bundle against. None: not known, or what the machine at hand has."""

    memory: Number | None = None  # bytes
    usable: Number | None = None  # share of the memory that one process can have
    bandwidth: Number | None = None  # bytes a second that all threads read of the memory that holds the weights
    compute: Mapping[DType, Number] = field(default_factory=dict)  # by format: operations a second, not sparse ones
    efficiency: Efficiency = Efficiency()
    kernels: Mapping[str, Kernel] = field(default_factory=dict)  # by product: used in place of the peak figures
    dispatch: Number | None = None  # seconds that each operator takes, whatever it computes
    runtime: Number | None = None  # bytes of memory that the runtime takes beside weights and cache
    power: Number | None = None  # watts, under load
    storage: Number | None = None  # bytes a second that are read from what holds the bundle

    def numbers(self) -> Iterator[tuple[str, Number]]:
        """All of them by their keys: `memory`, `compute.int8`, `efficiency.decode.any`."""
        yield from _numbers(self)

    def __post_init__(self) -> None:
        if self.usable:
            _check_share("usable", self.usable)
        for kernel in self.kernels:
            if not _KERNEL.fullmatch(kernel):
                raise OptionError(f"kernels: no kind of product is named {kernel!r}; known: {KERNEL}")


@dataclass(frozen=True)
class Numerics:
    """Which number formats the device computes with; what a lint holds a graph against. Empty: not restricted."""

    weights: tuple[DType, ...] = ()
    activations: tuple[DType, ...] = ()
    cache: tuple[DType, ...] = ()  # of keys and values
    io: tuple[DType, ...] = ()  # of the inputs and outputs of a graph
    encodings: tuple[Encoding, ...] = ()  # how quantized weights are written
    block_sizes: tuple[int, ...] = ()  # weights that share a scale: powers of two from 16 to 1024; 0: a whole row
    symmetric: bool = False  # whether weights must do without zero points
    arithmetic: Mapping[DType, DType] = field(default_factory=dict)  # format of weights: what they are multiplied in
    accumulation: DType | None = None  # what products are added up in
    sparsity: tuple[Literal["2:4"], ...] = ()  # patterns of zeros among the weights that products skip

    def __post_init__(self) -> None:
        for size in self.block_sizes:
            if size not in BLOCKS:
                raise OptionError(f"block_sizes: {size} is not one of {', '.join(map(str, BLOCKS))}")


@dataclass(frozen=True)
class Lengths:
    """Graphs of fixed lengths: one for prompts, and one that decodes one token at a time."""

    prefill: int = 128  # tokens that one run of the graph for prompts computes

    def __post_init__(self) -> None:
        if self.prefill < 1:
            raise OptionError(f"prefill: {self.prefill} is not 1 or more")


@dataclass(frozen=True)
class Needs:
    """What a graph has to be like. Operators are named as in ONNX, others as `com.microsoft:MatMulNBits`."""

    static: Lengths | None = None  # None: dynamic shapes are well
    opset: int | None = None  # the highest
    only: tuple[str, ...] = ()  # operators that may occur; empty: all
    denied: tuple[str, ...] = ()  # operators that may not
    types: Mapping[str, tuple[DType, ...]] = field(default_factory=dict)  # by operator: what its first input may be
    layout: Literal["BNSH"] | None = None  # of keys and values: batch, heads, positions, head size; None: any
    graph_bytes: Number | None = None  # the largest graph with its weights

    def __post_init__(self) -> None:
        if self.opset is not None and self.opset not in OPSETS:
            raise OptionError(f"opset: {self.opset} is not from {OPSETS.start} to {OPSETS.stop - 1}")
        for key, operators in (("only", self.only), ("denied", self.denied), ("types", tuple(self.types))):
            check_operators(operators, what=key)


@dataclass(frozen=True)
class Compile:
    """Compilation ahead of time, on the machine that builds: EPContext models of ONNX Runtime."""

    options: Mapping[str, str] = field(default_factory=dict)  # for the provider, beside its own: "soc_model", ...
    share_weights: bool = False  # graphs of one bundle share a weight file
    halves: bool = False  # what is float32 in a graph takes 16 bits in what is made of it
    code: Number | None = None  # bytes that an operator takes there
    memory: Number | None = None  # bytes that the compiler takes for each parameter
    runtime: Number | None = None  # and bytes that it takes whatever it compiles

    def takes(self, parameters: int) -> int:
        """Memory of the compiler, as far as it is known: bytes."""
        each, always = (number.value if number else 0.0 for number in (self.memory, self.runtime))
        return int(each * parameters + always)


@dataclass(frozen=True)
class Target:
    """A device, and what a bundle for it looks like."""

    name: str
    description: str
    providers: tuple[Provider, ...]  # execution providers, the first one first
    extends: str = ""  # the target whose profile this one goes on from
    base: bool = False  # only there for others to extend
    aliases: tuple[str, ...] = ()
    proof: Proof = "specified"  # run: bundles run where we test; emulated: compiled and emulated there
    device: Device = Device()
    hardware: Hardware = Hardware()
    numerics: Numerics = Numerics()
    needs: Needs = Needs()
    recipe: tuple[RecipeStep, ...] = ()  # what is done unless the user's own recipe replaces it
    calibrated: tuple[RecipeStep, ...] = ()  # what follows any recipe where there is a calibration text
    encoders: tuple[RecipeStep, ...] = ()  # the recipe of models that embed or label texts; empty: that of all
    lowering: tuple[RecipeStep, ...] = ()  # the dialect of this device
    compile: Compile | None = None  # ahead of time; None: the device compiles when it loads
    context: int = 4096  # tokens that a session gets unless it asks for more or fewer
    threads: int | None = None  # of a session; None: as many as there are cores
    session: Mapping[str, str] = field(default_factory=dict)  # session configuration entries of ONNX Runtime

    def __post_init__(self) -> None:
        for name in (self.name, *self.aliases):
            if not _NAME.fullmatch(name):
                raise OptionError(f"name: {name!r} is not lower-case letters, digits and hyphens, as in pi-5")
        if not self.description.strip() or "\n" in self.description:
            raise OptionError("description: it is to be one line, which lists show")
        for key, count in (("context", self.context), ("threads", self.threads)):
            if count is not None and count < 1:
                raise OptionError(f"{key}: {count} is not 1 or more")
        if not self.providers:
            raise OptionError(f"providers: none is given; one is {CPU.name}")
        for provider in self.providers:
            check_provider(provider)
            if self.compile and provider.name != CPU.name:  # which takes what a compiler leaves
                check_options(replace(provider, options=self.compile.options))
        check_session(self.session)


def _numbers(table: Any, *above: str) -> Iterator[tuple[str, Number]]:
    for key, value in (table if isinstance(table, Mapping) else vars(table)).items():
        if isinstance(value, Number):
            yield ".".join((*above, key)), value
        elif value is not None:
            yield from _numbers(value, *above, key)


def _check_share(key: str, share: Number) -> None:
    if share.value > 1:
        raise OptionError(f"{key}: value: {share.value} is not a share, which is at most 1")
