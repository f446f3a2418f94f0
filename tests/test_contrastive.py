"""tests: contrastive search, by a slow reference of its equation, on tables and on a checkpoint in transformers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray

from edgewise.bundle.read import Bundle
from edgewise.errors import GenerationError, OptionError
from edgewise.options import parse, record
from edgewise.pipeline import build
from edgewise.recipe import Recipe
from edgewise.registry import registry
from edgewise.runtime.runner import Runner
from edgewise.search.contrastive import Contrastive
from edgewise.search.greedy import Greedy
from edgewise.search.penalties import PresencePenalty
from tables import Model, Texts, log_softmax, search, table

PROMPT = (1, 2)
VOCABULARY, HIDDEN = 30, 8
TEXT = "def read_json("


def reference(model: Model, hidden: Model, prompt: tuple[int, ...], count: int, alpha: float, k: int) -> list[int]:
    """Equation 5 of the paper, from whole texts each time."""
    text = prompt
    for _ in range(count):
        chances = np.exp(log_softmax(model(text)))
        before = [hidden(text[: i + 1]).astype(np.float64) for i in range(len(text))]

        scores = {}
        for token in np.argsort(-chances)[:k].tolist():
            state = hidden((*text, token)).astype(np.float64)
            cosines = [state @ other / np.linalg.norm(state) / np.linalg.norm(other) for other in before]
            scores[token] = (1 - alpha) * chances[token] - alpha * max(cosines)
        text += (max(scores, key=lambda token: float(scores[token])),)
    return list(text[len(prompt) :])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("alpha", "k"), [(0.6, 4), (0.3, 8), (1.0, 2), (0.1, 30)])
def test_tokens_are_those_of_the_equation(seed: int, alpha: float, k: int) -> None:
    model, hidden = table(seed, VOCABULARY), table(seed + 100, HIDDEN)
    texts = Texts(model, hidden=hidden)
    found = search(Contrastive(penalty_alpha=alpha, top_k=k), texts, limit=15)[0]
    assert list(found.tokens) == reference(model, hidden, PROMPT, 15, alpha, k)
    assert texts.most == k


def test_no_penalty_and_one_candidate_are_greedy() -> None:
    model, hidden = table(0, VOCABULARY), table(1, HIDDEN)
    greedy = search(Greedy(), Texts(model), limit=20, eos=(3,))
    for how in (Contrastive(penalty_alpha=0.0), Contrastive(top_k=1)):
        assert search(how, Texts(model, hidden=hidden), limit=20, eos=(3,)) == greedy
    assert search(Contrastive(), Texts(model, hidden=hidden), limit=20, eos=(3,)) != greedy


def test_processors_and_log_probabilities_are_those_of_other_searches() -> None:
    """A presence penalty changes what is chosen, and not how probable the model held it."""
    model, hidden = table(0, VOCABULARY), table(1, HIDDEN)
    penalty = (PresencePenalty(100.0),)
    found = search(Contrastive(), Texts(model, hidden=hidden), limit=12, logprobs=1, processors=penalty)[0]
    assert len(set(found.tokens)) == 12
    for i, chosen in enumerate(found.logprobs):
        expected = log_softmax(model(PROMPT + found.tokens[:i]))
        assert chosen.logprob == pytest.approx(expected[found.tokens[i]], abs=1e-5)
        assert chosen.top[0][0] == expected.argmax()


class Few:
    """Leaves two tokens, and then none."""

    def start(self, prompt: tuple[int, ...]) -> int:
        return 0

    def advance(self, state: int, tokens: tuple[int, ...]) -> int:
        return state + 1

    def apply(self, state: int, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        logits[5 + (2 if state < 3 else -5) :] = -np.inf
        logits[:5] = -np.inf
        return logits


def test_banned_tokens_are_no_candidates() -> None:
    texts = Texts(table(0, VOCABULARY), hidden=table(1, HIDDEN))
    found = search(Contrastive(), texts, limit=3, processors=(Few(),))[0]
    assert set(found.tokens) <= {5, 6}
    assert texts.most == 2
    with pytest.raises(GenerationError, match="all are banned"):
        search(Contrastive(), texts, limit=4, processors=(Few(),))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"penalty_alpha": 1.1}, "penalty_alpha is 1.1; it must be from 0 (greedy) to 1"),
        ({"penalty_alpha": float("nan")}, "penalty_alpha is nan"),
        ({"top_k": 0}, "top_k is 0; it must be 1 (greedy) or above"),
    ],
)
def test_an_option_out_of_range_is_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(Contrastive, options, what="search 'contrastive'")
    assert message in str(caught.value)


def test_it_is_found_by_its_name_and_written_back() -> None:
    assert registry().searches.get("contrastive") is Contrastive
    assert parse(Contrastive, record(Contrastive(top_k=6)), what="contrastive") == Contrastive(top_k=6)


@pytest.fixture(scope="module")
def runner(pycoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """The demo in floats, with an output of hidden states."""
    output = tmp_path_factory.mktemp("hidden") / "pycoder.edge"
    build(pycoder, output=output, recipe=Recipe(()), hidden_states=True, load_check=False)
    with Runner.open(output, threads=1) as opened:
        yield opened


def test_a_bundle_with_hidden_states_searches_as_the_equation_says(runner: Runner, pycoder: Path) -> None:
    """The reference on what transformers computes. Twice: a prompt that is known makes no difference."""
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(pycoder, dtype=torch.float32)
    known: dict[tuple[int, ...], tuple[NDArray[np.float32], NDArray[np.float32]]] = {}

    def run(text: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if text not in known:
            with torch.no_grad():
                out = model(torch.tensor([text]), output_hidden_states=True)
            known[text] = out.logits[0, -1].numpy(), out.hidden_states[-1][0, -1].numpy()
        return known[text]

    prompt = runner.tokenizer.encode(TEXT)
    expected = reference(lambda text: run(text)[0], lambda text: run(text)[1], prompt, 16, 0.6, 4)
    for _ in range(2):
        assert list(runner.generate(prompt, max_tokens=16, search="contrastive").tokens) == expected


def test_a_bundle_without_hidden_states_says_so(pycoder_bundle: Bundle) -> None:
    with Runner.open(pycoder_bundle.path, threads=1) as plain, pytest.raises(GenerationError, match="hidden states"):
        plain.generate(TEXT, search="contrastive")
