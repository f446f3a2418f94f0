"""sdk, runtime: what a checkpoint's generation_config.json asks for, when the caller asks for nothing."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgewise.errors import BundleError, OptionError
from edgewise.options import parse
from edgewise.search.bans import BadWords, SuppressTokens
from edgewise.search.beam import Beam
from edgewise.search.beam_sample import BeamSample
from edgewise.search.bias import LogitBias
from edgewise.search.greedy import Greedy
from edgewise.search.guided import Guided
from edgewise.search.length import LengthDecay, MinLength
from edgewise.search.ngrams import NoRepeatNgram
from edgewise.search.penalties import RepetitionPenalty
from edgewise.search.protocol import Processor, Search
from edgewise.search.sample import Sample

FILE_NAME = "generation_config.json"

TOP_K = 50  # what transformers samples from when a configuration does not say

# Keys that change what is generated and that no search here takes from a configuration, with the values that do not.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "num_beam_groups": (1,),
    "penalty_alpha": (0,),
    "top_h": (),
    "encoder_repetition_penalty": (1,),
    "encoder_no_repeat_ngram_size": (0,),
    "force_words_ids": ([],),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "watermarking_config": (),
    "stop_strings": ([],),
    "max_time": (),
}

# Keys that are processors, in the order in which transformers applies them: the values that change nothing, the
# processor, and its options for another value.
_PROCESSORS: dict[str, tuple[tuple[Any, ...], type[Processor], Callable[[Any], dict[str, Any]]]] = {
    "sequence_bias": (
        ([], {}),
        LogitBias,
        lambda pairs: {"sequences": [{"tokens": tokens, "bias": bias} for tokens, bias in pairs]},
    ),
    "repetition_penalty": ((1,), RepetitionPenalty, lambda penalty: {"penalty": penalty}),
    "no_repeat_ngram_size": ((0,), NoRepeatNgram, lambda size: {"size": size}),
    "bad_words_ids": (([],), BadWords, lambda words: {"sequences": words}),
    "min_length": ((0,), MinLength, lambda length: {"tokens": length}),
    "min_new_tokens": ((0,), MinLength, lambda length: {"new_tokens": length}),
    "exponential_decay_length_penalty": (
        (),
        LengthDecay,
        lambda decay: dict(zip(("begin", "factor"), decay, strict=True)),
    ),
    "suppress_tokens": (([],), SuppressTokens, lambda tokens: {"tokens": tokens}),
    "begin_suppress_tokens": (([],), SuppressTokens, lambda tokens: {"tokens": tokens, "begin": True}),
}


def read_generation_config(folder: Path) -> Mapping[str, Any]:
    """The file of a bundle as it is; empty where there is none."""
    path = folder / FILE_NAME
    try:
        config = json.loads(path.read_bytes()) if path.is_file() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path}: {error}") from error
    if not isinstance(config, dict):
        raise BundleError(f"{path}: expected a table")
    return config


def default_search(config: Mapping[str, Any]) -> Search:
    """The search that the configuration describes. Raises OptionError for what no search here does."""
    for key, neutral in _NEUTRAL.items():
        if (value := config.get(key)) is not None and value not in neutral:
            raise OptionError(
                f"{FILE_NAME} asks for {key}={value!r}, which is not done by default; name a search, such as greedy"
            )
    search = _alone(config)
    scale = _number(config, "guidance_scale", 1.0)
    return search if scale == 1 else Guided(search=search, scale=scale)


def default_processors(config: Mapping[str, Any]) -> tuple[Processor, ...]:
    """The processors that go with it, not bound yet. Raises OptionError."""
    made = []
    for key, (neutral, kind, options) in _PROCESSORS.items():
        if (value := config.get(key)) is not None and value not in neutral:
            try:
                given = options(value)
            except (TypeError, ValueError) as error:
                raise OptionError(f"{FILE_NAME}: {key} cannot be {value!r}") from error
            made.append(parse(kind, given, what=f"{FILE_NAME}: {key}"))
    return tuple(made)


def _alone(config: Mapping[str, Any]) -> Search:
    """The search without guidance."""
    sampled = bool(config.get("do_sample"))
    if config.get("num_beams") in (None, 1):
        return _sample(config) if sampled else Greedy()
    names = ("num_beams", "length_penalty", "early_stopping")
    kind: type[Search] = BeamSample if sampled else Beam
    given = {name: config[name] for name in names if config.get(name) is not None}
    return parse(kind, {**given, **({"search": _sample(config)} if sampled else {})}, what=FILE_NAME)


def _sample(config: Mapping[str, Any]) -> Sample:
    return Sample(
        temperature=_number(config, "temperature", 1.0),
        top_k=int(_number(config, "top_k", TOP_K)),
        top_p=_number(config, "top_p", 1.0),
        min_p=_number(config, "min_p", 0.0),
        typical_p=_number(config, "typical_p", 1.0),
        epsilon_cutoff=_number(config, "epsilon_cutoff", 0.0),
        eta_cutoff=_number(config, "eta_cutoff", 0.0),
    )


def eos_tokens(config: Mapping[str, Any], facts: tuple[int, ...]) -> frozenset[int]:
    """The tokens that end a sequence: the configuration's, or else the model's."""
    value = config.get("eos_token_id")
    tokens = [value] if isinstance(value, int) else value
    if tokens is None:
        return frozenset(facts)
    if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
        raise BundleError(f"{FILE_NAME}: eos_token_id must be a token or a list of tokens, got {value!r}")
    return frozenset(tokens)


def _number(config: Mapping[str, Any], key: str, default: float) -> float:
    value = config.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise OptionError(f"{FILE_NAME}: {key} must be a number, got {value!r}")
    return float(value)
