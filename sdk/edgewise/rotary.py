"""sdk: cos/sin tables of rotary position embeddings (arXiv 2104.09864), for an exporter and for a session.

Frequencies and angles are rounded to float32 at the places where transformers rounds them: at position 100,000 an
angle in float32 is off by thousandths, and a model was trained with exactly those angles. What lies between two
roundings is computed in float64, so that a table does not depend on the machine that made it.

Types `dynamic` and `longrope` depend on the context. transformers switches their frequencies during a generation,
and leaves keys in the cache that were rotated with others; here a table is fixed by the context that is asked for.
"""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgewise.facts import Rotary

Array = NDArray[np.float32]


def tables(rotary: Rotary, context: int) -> tuple[Array, Array]:
    """The cos and the sin table, each `[context, dim / 2]`, of a session of that context."""
    return table("cos", rotary, context), table("sin", rotary, context)


def table(kind: Literal["cos", "sin"], rotary: Rotary, context: int, start: int = 0, stop: int | None = None) -> Array:
    """Rows start to stop (positions) of one table of that context."""
    positions = np.arange(start, context if stop is None else stop, dtype=np.float32)
    angles = (positions[:, None] * frequencies(rotary, context)).astype(np.float64)
    wave = np.cos(angles, out=angles) if kind == "cos" else np.sin(angles, out=angles)
    rows: Array = wave.astype(np.float32)
    factor = np.float32(_number(rotary, "attention_factor", 1.0))
    return rows if factor == 1 else rows * factor


def frequencies(rotary: Rotary, context: int) -> Array:
    """The angle that each pair of dimensions turns by from one position to the next, `[dim / 2]`."""
    return _FREQUENCIES[rotary.type](rotary, context)


def _default(rotary: Rotary, context: int) -> Array:
    return np.float32(1) / _periods(rotary, rotary.theta)


def _linear(rotary: Rotary, context: int) -> Array:
    return _default(rotary, context) / np.float32(_number(rotary, "factor"))


def _dynamic(rotary: Rotary, context: int) -> Array:
    """NTK-aware scaling: the base grows once the context is longer than the original one."""
    if context <= rotary.original_context:
        return _default(rotary, context)
    factor = _number(rotary, "factor")
    stretch = np.float32(factor * context / rotary.original_context) - np.float32(factor - 1)
    base = np.float32(rotary.theta) * np.float32(float(stretch) ** (rotary.dim / (rotary.dim - 2)))
    return np.float32(1) / _periods(rotary, float(base))


def _llama3(rotary: Rotary, context: int) -> Array:
    """Long waves are slowed by `factor`, short ones kept, those between interpolated."""
    factor, original = np.float32(_number(rotary, "factor")), np.float32(rotary.original_context)
    low, high = (np.float32(_number(rotary, f"{end}_freq_factor")) for end in ("low", "high"))
    plain = _default(rotary, context)
    wavelength = np.float32(2 * math.pi) / plain
    slowed = np.where(wavelength > original / low, plain / factor, plain)
    smooth = (original / wavelength - low) / (high - low)
    between = (wavelength >= original / high) & (wavelength <= original / low)
    blend: Array = (np.float32(1) - smooth) * slowed / factor + smooth * slowed
    return np.where(between, blend, slowed).astype(np.float32)


def _yarn(rotary: Rotary, context: int) -> Array:
    """YaRN (arXiv 2309.00071): a ramp over the dimensions, from kept frequencies to slowed ones."""
    periods = _periods(rotary, rotary.theta)
    kept = np.float32(1) / periods
    slowed = np.float32(1) / (np.float32(_number(rotary, "factor")) * periods)
    low, high = _yarn_range(rotary)
    ramp = (np.arange(rotary.dim // 2, dtype=np.float32) - np.float32(low)) / np.float32(high - low)
    keep = np.float32(1) - np.clip(ramp, 0, 1).astype(np.float32)
    blend: Array = slowed * (np.float32(1) - keep) + kept * keep
    return blend


def _yarn_range(rotary: Rotary) -> tuple[float, float]:
    """The dimensions between which the ramp runs."""

    def dimension(rotations: float) -> float:
        turns = rotary.original_context / (rotations * 2 * math.pi)
        return rotary.dim * math.log(turns) / (2 * math.log(rotary.theta))

    low, high = dimension(_number(rotary, "beta_fast", 32)), dimension(_number(rotary, "beta_slow", 1))
    if _number(rotary, "truncate", 1):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotary.dim - 1)
    return low, high + 0.001 if low == high else high


def _longrope(rotary: Rotary, context: int) -> Array:
    """LongRoPE (arXiv 2402.13753): searched factors, one set for short contexts and one for long ones."""
    kind = "long_factor" if context > rotary.original_context else "short_factor"
    factors = np.array(rotary.parameters[kind], np.float32)
    return np.float32(1) / (factors * _periods(rotary, rotary.theta))


_FREQUENCIES: dict[str, Callable[[Rotary, int], Array]] = {
    "default": _default,
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}


def _periods(rotary: Rotary, base: float) -> Array:
    """Positions per radian of each pair of dimensions, `base ** (2 i / dim)`."""
    exponents = np.arange(0, rotary.dim, 2, dtype=np.float32) / np.float32(rotary.dim)
    return np.power(base, exponents.astype(np.float64)).astype(np.float32)


def _number(rotary: Rotary, name: str, default: float | None = None) -> float:
    value = rotary.parameters[name] if default is None else rotary.parameters.get(name, default)
    assert not isinstance(value, tuple)
    return value
