"""sdk, search: the searches, processors, stop rules, scalers and verifiers that come with edgewise."""

from edgewise.hookspecs import hookimpl


@hookimpl
def register_searches() -> dict[str, str]:
    return {
        "amateur": "edgewise.search.amateur:Amateur",
        "beam": "edgewise.search.beam:Beam",
        "beam_groups": "edgewise.search.groups:BeamGroups",
        "beam_sample": "edgewise.search.beam_sample:BeamSample",
        "contrastive": "edgewise.search.contrastive:Contrastive",
        "ensemble": "edgewise.search.ensemble:Ensemble",
        "greedy": "edgewise.search.greedy:Greedy",
        "guided": "edgewise.search.guided:Guided",
        "mbr": "edgewise.search.mbr:Mbr",
        "mirostat": "edgewise.search.mirostat:Mirostat",
        "sample": "edgewise.search.sample:Sample",
        "speculative": "edgewise.search.speculate:Speculative",
    }


@hookimpl
def register_processors() -> dict[str, str]:
    return {
        "allowed_tokens": "edgewise.search.bans:AllowedTokens",
        "bad_words": "edgewise.search.bans:BadWords",
        "dry": "edgewise.search.dry:Dry",
        "frequency_penalty": "edgewise.search.penalties:FrequencyPenalty",
        "grammar": "edgewise.search.grammar:Grammar",
        "length_decay": "edgewise.search.length:LengthDecay",
        "logit_bias": "edgewise.search.bias:LogitBias",
        "min_length": "edgewise.search.length:MinLength",
        "no_repeat_ngram": "edgewise.search.ngrams:NoRepeatNgram",
        "presence_penalty": "edgewise.search.penalties:PresencePenalty",
        "repetition_penalty": "edgewise.search.penalties:RepetitionPenalty",
        "suppress_tokens": "edgewise.search.bans:SuppressTokens",
        "thinking_budget": "edgewise.search.thinking:ThinkingBudget",
    }


@hookimpl
def register_stop_rules() -> dict[str, str]:
    return {
        "eos": "edgewise.search.stops:Eos",
        "floor": "edgewise.search.stops:Floor",
        "length": "edgewise.search.stops:MaxTokens",
        "loop": "edgewise.search.stops:Loop",
        "stop": "edgewise.search.stops:StopStrings",
        "time": "edgewise.search.stops:TimeLimit",
    }


@hookimpl
def register_scalers() -> dict[str, str]:
    return {
        "adaptive-consistency": "edgewise.scaling.adaptive:AdaptiveConsistency",
        "best-of-n": "edgewise.scaling.best_of_n:BestOfN",
        "cascade": "edgewise.scaling.cascade:Cascade",
        "cot-decoding": "edgewise.scaling.cot:CotDecoding",
        "deepconf": "edgewise.scaling.confidence:DeepConf",
        "mbr": "edgewise.scaling.minimum_risk:MinimumRisk",
        "refine": "edgewise.scaling.refine:Refine",
        "self-consistency": "edgewise.scaling.votes:SelfConsistency",
        "tree": "edgewise.scaling.tree:TreeSearch",
    }


@hookimpl
def register_verifiers() -> dict[str, str]:
    return {
        "judge": "edgewise.scaling.judge:Judge",
        "json-schema": "edgewise.scaling.programs:JsonSchema",
        "logprob": "edgewise.scaling.likelihood:Likelihood",
        "reward": "edgewise.scaling.reward:Reward",
        "tool": "edgewise.scaling.programs:Tool",
        "unit-tests": "edgewise.scaling.programs:UnitTests",
        "votes": "edgewise.scaling.judge:Votes",
    }
