"""exporters, decoder: the rotary embeddings that a configuration asks for, in its older and its newer spelling."""

import math
from collections.abc import Mapping

from edgewise.errors import CheckpointError
from edgewise.facts import Rotary
from edgewise_exporters.decoder.config import Config
from edgewise_exporters.decoder.family import Family
from edgewise_exporters.decoder.layers import FULL, SLIDING

LONGEST = 2**24  # positions; a float32 counts no further

Parameters = dict[str, float | tuple[float, ...]]


def read_rotary(config: Config, family: Family, head_dim: int) -> dict[str, Rotary]:
    """The rotary embeddings of a model by name: `global`, and `local` where windowed layers have their own."""
    tables = _tables(config, family)
    return {name: _rotary(table, config, family, head_dim) for name, table in tables.items()}


def reach(rotary: Mapping[str, Rotary], context: int) -> int:
    """The context of a model: `max_position_embeddings`, which `dynamic` (like no other type) exceeds by its factor."""
    factors = [r.parameters["factor"] for r in rotary.values() if r.type == "dynamic"]
    return max([context, *(int(context * factor) for factor in factors if isinstance(factor, float))])


def _tables(config: Config, family: Family) -> dict[str, Config]:
    """The parameters of each rotary embedding, `rope_theta` included."""
    older = {key: config.get(key) for key, _ in family.rotary.values()}
    scaling, parameters = config.table("rope_scaling"), config.table("rope_parameters")
    if scaling.data and parameters.data:
        raise CheckpointError(f"{config.where}: 'rope_scaling' and 'rope_parameters' are both given; expected one")
    if not (scaling.data or parameters.data):
        parameters = Config(family.rope_default, where=config.where)
    tables = {}
    for name, (key, theta) in family.rotary.items():
        table = parameters
        if len(family.rotary) > 1:
            table = parameters.table(FULL if name == "global" else SLIDING)
        if name == "global" and scaling.data:
            table = scaling
        filled = {"rope_theta": theta if older[key] is None else older[key]}
        tables[name] = Config(table.data, where=table.where if table.data else config.where, defaults=filled)
    if len(family.rotary) > 1:
        parameters.refuse_unread()
    return tables


def _rotary(table: Config, config: Config, family: Family, head_dim: int) -> Rotary:
    spelling = "rope_type" if table.get("type") is None or table.get("rope_type") is not None else "type"
    kind = family.rope_types[table.choice(spelling, family.rope_types, "default")]
    longest = config.integer("max_position_embeddings", most=LONGEST)
    if not family.partial_rotary:
        table.must_be("partial_rotary_factor", 1.0)
        config.must_be("partial_rotary_factor", 1.0)
    dim = int(head_dim * table.number("partial_rotary_factor", config.number("partial_rotary_factor", 1.0)))
    if dim % 2 or not 4 <= dim <= head_dim:
        raise CheckpointError(f"{table.where}: {dim} rotated dimensions of {head_dim}; expected an even number from 4")
    original, numbers = _scaling(table, config, kind, dim, longest)
    theta = table.number("rope_theta", above=1)
    table.refuse_unread()
    return Rotary(dim=dim, theta=theta, type=kind, original_context=original, parameters=numbers)  # type: ignore[arg-type]


def _scaling(table: Config, config: Config, kind: str, dim: int, longest: int) -> tuple[int, Parameters]:
    """The context that was trained, and the scaling's own numbers."""
    if kind in ("default", "linear"):
        return 0, {} if kind == "default" else {"factor": table.number("factor")}
    if kind == "dynamic":
        return longest, {"factor": table.number("factor", most=LONGEST / longest)}
    original = table.integer("original_max_position_embeddings", longest, least=2, most=LONGEST)
    if config.get("original_max_position_embeddings") is not None:
        original = config.integer("original_max_position_embeddings", least=2, most=LONGEST)
    if kind == "llama3":
        return original, _llama3(table)
    factor = table.number("factor", longest / original)
    return original, _yarn(table, factor) if kind == "yarn" else _longrope(table, factor, dim, original)


def _llama3(table: Config) -> Parameters:
    numbers: Parameters = {key: table.number(key) for key in ("factor", "low_freq_factor", "high_freq_factor")}
    table.number("high_freq_factor", above=table.number("low_freq_factor"))
    return numbers


def _yarn(table: Config, factor: float) -> Parameters:
    def mscale(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    attention_factor = mscale(1.0)
    if table.get("mscale") and table.get("mscale_all_dim"):
        attention_factor = mscale(table.number("mscale")) / mscale(table.number("mscale_all_dim"))
    return {
        "factor": factor,
        "attention_factor": table.number("attention_factor", attention_factor),
        "beta_fast": table.number("beta_fast", 32),
        "beta_slow": table.number("beta_slow", 1),
        "truncate": float(table.flag("truncate", True)),
    }


def _longrope(table: Config, factor: float, dim: int, original: int) -> Parameters:
    attention_factor = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    return {
        "attention_factor": table.number("attention_factor", attention_factor),
        "short_factor": table.numbers("short_factor", dim // 2),
        "long_factor": table.numbers("long_factor", dim // 2),
    }
