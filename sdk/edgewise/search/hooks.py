"""sdk, search: the searches, processors and stop rules that come with edgewise."""

from edgewise.hookspecs import hookimpl


@hookimpl
def register_searches() -> dict[str, str]:
    return {
        "beam": "edgewise.search.beam:Beam",
        "beam_groups": "edgewise.search.groups:BeamGroups",
        "beam_sample": "edgewise.search.beam_sample:BeamSample",
        "greedy": "edgewise.search.greedy:Greedy",
        "sample": "edgewise.search.sample:Sample",
        "speculative": "edgewise.search.speculate:Speculative",
    }


@hookimpl
def register_processors() -> dict[str, str]:
    return {
        "frequency_penalty": "edgewise.search.penalties:FrequencyPenalty",
        "grammar": "edgewise.search.grammar:Grammar",
        "presence_penalty": "edgewise.search.penalties:PresencePenalty",
        "repetition_penalty": "edgewise.search.penalties:RepetitionPenalty",
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
