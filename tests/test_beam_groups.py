"""tests: diverse beam search, by a slow reference that holds whole sequences."""

from collections import Counter
from typing import Any

import pytest

from edgewise.errors import OptionError
from edgewise.options import parse, record
from edgewise.registry import registry
from edgewise.search.beam import Beam
from edgewise.search.groups import BeamGroups
from tables import Model, Texts, log_softmax, search, table

PROMPT = (1, 2)
END = 3


def reference(
    model: Model, groups: int, width: int, diversity: float, penalty: float, limit: int, vocabulary: int
) -> list[tuple[float, tuple[int, ...]]]:
    """Equation 5 of the paper, at each step group after group; each group stops as `early_stopping` true says."""
    fronts: list[dict[tuple[int, ...], float]] = [{(): 0.0} for _ in range(groups)]
    complete: list[dict[tuple[int, ...], float]] = [{} for _ in range(groups)]
    for _ in range(limit):
        chosen: Counter[int] = Counter()
        for group, front in enumerate(fronts):
            children = {
                (*tokens, token): total + float(log_softmax(model(PROMPT + tokens))[token]) - diversity * chosen[token]
                for tokens, total in front.items()
                for token in range(vocabulary)
            }
            ranked = sorted(children, key=lambda tokens: -children[tokens])
            over = [tokens for tokens in ranked[:width] if tokens[-1] == END or len(tokens) == limit]
            complete[group] |= {tokens: children[tokens] / len(tokens) ** penalty for tokens in over}
            full = len(complete[group]) >= width
            opened = [tokens for tokens in ranked if tokens[-1] != END and len(tokens) < limit]
            fronts[group] = {tokens: children[tokens] for tokens in opened[:width]}
            chosen.update(tokens[-1] for tokens in fronts[group])
            if full:
                fronts[group] = {}
    best = [sorted(((score, tokens) for tokens, score in each.items()), reverse=True)[:width] for each in complete]
    return sorted((pair for each in best for pair in each), key=lambda pair: -pair[0])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("groups", "width"), [(2, 1), (2, 2), (3, 2), (4, 1)])
def test_groups_are_those_of_the_paper(seed: int, groups: int, width: int) -> None:
    model = table(seed, 12)
    expected = reference(model, groups, width, 0.7, 1.5, 6, 12)
    how = BeamGroups(
        num_beams=groups * width,
        num_return=groups * width,
        num_beam_groups=groups,
        diversity_penalty=0.7,
        length_penalty=1.5,
        early_stopping=True,
    )
    found = search(how, Texts(model), limit=6, eos=(END,))
    assert [each.tokens for each in found] == [tuple(t for t in tokens if t != END) for _, tokens in expected]
    assert [each.score for each in found] == pytest.approx([score for score, _ in expected], rel=1e-5)


def test_one_group_is_beam_search() -> None:
    options = {"num_beams": 4, "num_return": 4, "early_stopping": "never"}
    for seed in range(4):
        groups = BeamGroups(num_beam_groups=1, diversity_penalty=9.0, **options)  # type: ignore[arg-type]
        found = [
            search(how, Texts(table(seed, 20)), limit=6, eos=(END,))
            for how in (groups, Beam(**options))  # type: ignore[arg-type]
        ]
        assert found[0] == found[1]


def test_groups_without_a_penalty_all_say_the_same_and_with_a_large_one_nothing_in_common() -> None:
    def first_tokens(penalty: float) -> list[int]:
        how = BeamGroups(num_beams=4, num_return=4, num_beam_groups=4, diversity_penalty=penalty)
        return [each.tokens[0] for each in search(how, Texts(table(0, 20)), limit=5)]

    assert len(set(first_tokens(0.0))) == 1
    assert len(set(first_tokens(100.0))) == 4


def test_groups_have_no_more_rows_than_beams() -> None:
    texts = Texts(table(0, 30))
    search(BeamGroups(num_beams=6, num_beam_groups=3), texts, limit=20, eos=(END,))
    assert texts.most <= 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 4, "num_beam_groups": 3}, "num_beams is 4; it must be a multiple of 3 groups"),
        ({"num_beam_groups": 0}, "num_beam_groups is 0; it must be 1 or above"),
        ({"diversity_penalty": -0.5}, "diversity_penalty is -0.5; it must be 0 (none) or above"),
        ({"diversity_penalty": float("nan")}, "diversity_penalty is nan"),
    ],
)
def test_an_option_out_of_range_is_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(BeamGroups, options, what="search 'beam_groups'")
    assert message in str(caught.value)


def test_groups_are_found_by_their_name_and_written_back() -> None:
    assert registry().searches.get("beam_groups") is BeamGroups
    groups = BeamGroups(num_beam_groups=4, diversity_penalty=1.0)
    assert parse(BeamGroups, record(groups), what="groups") == groups
