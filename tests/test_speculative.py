"""tests: speculative decoding: what it gives is what the search gives, or is distributed as that is."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from drafting import chain, near
from edgewise.bundle.read import Bundle
from edgewise.errors import OptionError
from edgewise.runtime.runner import Runner
from edgewise.search.beam import Beam
from edgewise.search.greedy import Greedy
from edgewise.search.penalties import RepetitionPenalty
from edgewise.search.protocol import Drafts, Extend, FloatArray
from edgewise.search.sample import Sample
from edgewise.search.speculate import Speculative
from edgewise.search.stepwise import Stepwise
from tables import Model, Texts, search, table
from toy_tokenizers import byte_level, with_control

VOCABULARY = 12
WIDTHS = [None, 1, 2, 5, 16]


SEARCHES = [Greedy(), Sample(), Sample(temperature=0), Sample(temperature=0.5, top_k=5), Sample(top_p=0.8)]
MORE: list[dict[str, Any]] = [{}, {"processors": (RepetitionPenalty(1.4),), "logprobs": 2}]
MODELS = {"lookup finds": chain(0), "lookup finds nothing": table(1, VOCABULARY)}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("how", SEARCHES, ids=str)
def test_with_lookup_every_token_is_that_of_the_search(how: Stepwise, width: int | None, model: Model) -> None:
    """Also of a search that draws, with the same seed; and penalties and log-probabilities go along."""
    for more in MORE:
        expected = search(how, Texts(model), limit=50, rng=np.random.default_rng(3), **more)
        speculative = Speculative(search=how, width=width)
        assert search(speculative, Texts(model), limit=50, rng=np.random.default_rng(3), **more) == expected


@pytest.mark.parametrize("how", SEARCHES, ids=str)
@pytest.mark.parametrize("noise", [0.0, 1.0, 30.0])
def test_with_an_assistant_and_a_seed_every_token_is_that_of_the_search(how: Stepwise, noise: float) -> None:
    model = table(1, VOCABULARY)
    for more in MORE:
        expected = search(how, Texts(model), limit=50, rng=np.random.default_rng(3), **more)
        texts = Texts(model, near(model, noise))
        found = search(
            Speculative(search=how), texts, limit=50, rng=np.random.default_rng(3), assistants=(1000,), **more
        )
        assert found == expected


def test_drafts_of_a_model_that_always_agrees_are_all_accepted() -> None:
    model = table(1, VOCABULARY)
    for more in MORE:
        drafts = Drafts()
        search(
            Speculative(width=4, search=Greedy()),
            Texts(model, model),
            limit=51,
            assistants=(99,),
            drafts=drafts,
            **more,
        )
        assert drafts == Drafts(steps=10, drafted=40, accepted=40)
    assert drafts.mean_accepted == 4


def test_drafts_of_a_model_that_never_agrees_are_all_rejected() -> None:
    model = table(1, VOCABULARY)
    drafts = Drafts()
    search(
        Speculative(width=2, search=Greedy()),
        Texts(model, lambda t: -model(t)),
        limit=20,
        assistants=(99,),
        drafts=drafts,
    )
    assert (drafts.accepted, drafts.mean_accepted) == (0, 0)


class Recorded(Texts):
    """Remembers what was asked for."""

    def __init__(self, *models: Model) -> None:
        super().__init__(*models)
        self.extends: list[Extend] = []

    def extend(self, extends: Sequence[Extend]) -> tuple[FloatArray, ...]:
        self.extends += extends
        return super().extend(extends)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_step_has_one_token_or_an_even_number_of_them_and_none_passes_the_limit(width: int | None) -> None:
    for prompt in ((4,), (1, 2, 3)):
        texts = Recorded(chain(0), near(chain(0), 1.0))
        for assistants in ((), (1000,)):
            search(Speculative(width=width, search=Greedy()), texts, limit=17, prompt=prompt, assistants=assistants)
        steps = [extend for extend in texts.extends if extend.model == 0 and extend.parent is not None]
        assert steps
        sizes = {len(extend.tokens) for extend in steps}
        assert all(size % 2 == 0 or (size == 1 and width is None) for size in sizes)
        assert all(extend.scores == len(extend.tokens) for extend in steps)
        assert all(extend.length >= len(prompt) for extend in steps), "what the prompt left is not computed again"
        assert max(len(row) for row in texts.rows.values()) <= len(prompt) + 17


def test_a_draft_stops_where_its_context_ends() -> None:
    model = table(1, VOCABULARY)
    texts = Texts(model, model)
    expected = search(Greedy(), Texts(model), limit=40)
    assert search(Speculative(search=Greedy(), width=3), texts, limit=40, assistants=(20,)) == expected
    assert len(texts.rows[1, 0]) == 20


def test_a_draft_may_score_fewer_or_more_tokens() -> None:
    """Models of one tokenizer are padded to different sizes."""
    model = chain(0)
    expected = search(Greedy(), Texts(model), limit=40)
    wider: Model = lambda text: np.append(model(text), np.float32(99))  # noqa: E731
    narrower: Model = lambda text: model(text)[:-2]  # noqa: E731
    for draft in (wider, narrower):
        for how in (Speculative(search=Greedy(), width=3), Speculative(search=Sample(temperature=0), width=3)):
            assert search(how, Texts(model, draft), limit=40, assistants=(99,)) == expected


@pytest.fixture(scope="module")
def small(pycoder_bundle: Bundle) -> Iterator[Runner]:
    with Runner.open(pycoder_bundle.path, threads=1) as opened:
        yield opened


PROMPT = "class Queue:\n    def __init__(self):\n        self.items = []\n\n    def push(self"


@pytest.mark.parametrize("how", ["greedy", {"name": "sample", "temperature": 0.7, "top_p": 0.9}])
def test_a_bundle_says_the_same_with_speculation(float_runner: Runner, small: Runner, how: Any) -> None:
    expected = float_runner.generate(PROMPT, max_tokens=80, search=how, seed=4)
    assert expected.drafts is None
    for assistants in ([], [small]):
        for width in (None, 3):
            if assistants and width and how != "greedy":
                continue  # drafts are drawn
            speculative = {"name": "speculative", "search": how, "width": width}
            found = float_runner.generate(PROMPT, max_tokens=80, search=speculative, seed=4, assistants=assistants)
            assert found.tokens == expected.tokens
            assert found.drafts is not None
            assert 0 < found.drafts.accepted <= found.drafts.drafted


def test_drafts_change_no_bit_of_a_score(small: Runner) -> None:
    """In int4, whose scores depend on how tokens are computed: for any width, with drafts of either kind, the same."""
    found = set()
    for width, assistants in ((1, []), (4, []), (7, []), (3, [small])):
        result = small.generate(
            PROMPT, max_tokens=40, search={"name": "speculative", "width": width}, assistants=assistants, logprobs=1
        )
        found.add(result.logprobs)
    assert len(found) == 1


def test_drawn_drafts_repeat_with_a_seed_and_a_width(float_runner: Runner, small: Runner) -> None:
    speculative = {"name": "speculative", "search": "sample", "width": 3}
    texts = {
        float_runner.generate(PROMPT, max_tokens=20, search=speculative, seed=seed, assistants=[small]).text
        for seed in (4, 4, 5)
    }
    assert len(texts) == 2


def test_an_assistant_of_another_tokenizer_is_refused(small: Runner) -> None:
    other = Runner(small.model, with_control(byte_level))
    with pytest.raises(
        OptionError, match=r"assistant 1 has another tokenizer: token \d+ is '.+' to it and '.+' to the"
    ):
        small.generate("x", search="speculative", assistants=[other])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width is 0; it must be from 1 to 24"),
        ({"search": Beam()}, "search 'beam' cannot be sped up by speculation"),
        ({"search": "speculative"}, "search 'speculative' cannot be sped up"),
    ],
)
def test_what_cannot_be_sped_up_is_refused(small: Runner, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        small.generate("x", search={"name": "speculative", **options})


def test_assistants_without_a_use_are_refused(small: Runner) -> None:
    for how, count in (("greedy", 1), ("speculative", 2)):
        with pytest.raises(OptionError, match=rf"assistants given: {count}; search '\w+' has a use for {count - 1}"):
            small.generate("x", search=how, assistants=[small] * count)
