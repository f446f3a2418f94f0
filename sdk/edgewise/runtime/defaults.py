"""sdk, runtime: what a checkpoint's generation_config.json asks for, when the caller asks for nothing."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgewise.errors import BundleError, OptionError
from edgewise.search.greedy import Greedy
from edgewise.search.penalties import RepetitionPenalty
from edgewise.search.protocol import Processor, Search
from edgewise.search.sample import Sample

FILE_NAME = "generation_config.json"

TOP_K = 50  # what transformers samples from when a configuration does not say

# Keys that change what is generated and that no search here takes from a configuration, with the values that do not.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "penalty_alpha": (0,),
    "typical_p": (1,),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
    "top_h": (),
    "no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1,),
    "encoder_no_repeat_ngram_size": (0,),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "exponential_decay_length_penalty": (),
    "guidance_scale": (1,),
    "bad_words_ids": ([],),
    "force_words_ids": ([],),
    "sequence_bias": ({}, []),
    "suppress_tokens": ([],),
    "begin_suppress_tokens": ([],),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "watermarking_config": (),
    "stop_strings": ([],),
    "max_time": (),
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
    if not config.get("do_sample"):
        return Greedy()
    return Sample(
        temperature=_number(config, "temperature", 1.0),
        top_k=int(_number(config, "top_k", TOP_K)),
        top_p=_number(config, "top_p", 1.0),
        min_p=_number(config, "min_p", 0.0),
    )


def default_processors(config: Mapping[str, Any]) -> tuple[Processor, ...]:
    """The processors that go with it."""
    penalty = _number(config, "repetition_penalty", 1.0)
    return () if penalty == 1 else (RepetitionPenalty(penalty),)


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
