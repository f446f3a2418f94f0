"""tests: thoughts apart from answers, and a bound on how long a model thinks."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.bundle.read import Bundle
from edgewise.errors import OptionError
from edgewise.runtime.runner import Runner
from edgewise.search.thinking import ThinkingBudget
from edgewise.text.chat import ChatTemplate
from edgewise.text.reasoning import Span, Spans, Tags, joined, tags_of, thinks_at_end
from edgewise.text.tokenizer import Tokenizer
from edgewise.text.vocabulary import TokenizerVocabulary

THINKS = "{% for m in messages %}{{ m.content }}{% endfor %}{# <think> and </think> #}"


def separated(text: str, *, thinking: bool = False) -> tuple[str, str]:
    spans = Spans(Tags(), thinking=thinking)
    return joined([*spans.push(text), *spans.flush()])


@pytest.mark.parametrize(
    ("text", "thinking", "thought", "answer"),
    [
        ("plain", False, "", "plain"),
        ("<think>\nhm\n</think>\n\nyes", False, "hm", "yes"),
        ("hm</think>yes", True, "hm", "yes"),
        ("hm, it was cut", True, "hm, it was cut", ""),
        ("<think></think>yes", False, "", "yes"),
        ("<think>a</think>b<think>c</think>d", False, "ac", "bd"),
        ("1 < 2 <thin air", False, "", "1 < 2 <thin air"),
        (" spaces stay ", False, "", " spaces stay "),
    ],
)
def test_thoughts_are_told_from_answers(text: str, thinking: bool, thought: str, answer: str) -> None:
    assert separated(text, thinking=thinking) == (thought, answer)


@given(st.lists(st.sampled_from(["<think>", "</think>", "<thi", "nk>", "a", " ", "</", "think>"])), st.data())
def test_however_a_text_is_cut_its_spans_are_the_same(parts: list[str], data: st.DataObject) -> None:
    text = "".join(parts)
    spans = Spans(Tags())
    found: list[Span] = []
    while text:
        cut = data.draw(st.integers(1, len(text)))
        found += spans.push(text[:cut])
        text = text[cut:]
    found += spans.flush()
    assert joined(found) == separated("".join(parts))


def test_tags_are_those_that_the_template_speaks_of() -> None:
    assert tags_of(THINKS) == Tags()
    assert tags_of("{{ messages }}") is None
    assert thinks_at_end("user: x\nassistant: <think>\n", Tags())
    assert not thinks_at_end("<think>x</think>", Tags())
    assert not thinks_at_end("x", Tags())


@pytest.fixture
def thinker(pycoder_bundle: Bundle) -> Iterator[Runner]:
    with Runner.open(pycoder_bundle.path) as runner:
        runner._template = ChatTemplate(THINKS, runner.tokenizer)
        yield runner


@pytest.mark.parametrize("ending", ["", " So, to sum up:</think>\n"])
def test_a_thought_is_closed_when_its_budget_is_spent(thinker: Runner, ending: str) -> None:
    prompt = "def f(x):<think>"
    budget = ThinkingBudget(tokens=5, ending=ending)
    result = thinker.generate(prompt, max_tokens=40, search="greedy", processors=[budget])
    free = thinker.generate(prompt, max_tokens=5, search="greedy")
    assert result.tokens[:5] == free.tokens
    assert result.text.startswith(free.text + (ending or "</think>"))
    assert result.thought.startswith(free.text.strip())
    assert result.answer
    assert "</think>" not in result.thought


def test_a_budget_of_zero_closes_at_once_and_without_a_thought_nothing_happens(thinker: Runner) -> None:
    budget = ThinkingBudget(tokens=0)
    assert thinker.generate("x<think>", max_tokens=20, processors=[budget]).text.startswith("</think>")
    plain = thinker.generate("def f(x):", max_tokens=20, search="greedy")
    assert thinker.generate("def f(x):", max_tokens=20, search="greedy", processors=[budget]).text == plain.text


def test_spans_stream_as_they_come(thinker: Runner) -> None:
    budget = ThinkingBudget(tokens=4)
    stream = thinker.stream("x = 1<think>", max_tokens=30, search="greedy", processors=[budget])
    spans = list(stream.spans())
    assert {span.thought for span in spans} == {True, False}
    assert "".join(span.text for span in spans if span.thought).strip() == stream.result().thought


def test_the_state_of_a_budget_is_a_value(thinker: Runner) -> None:
    vocabulary = TokenizerVocabulary(thinker.tokenizer, thinker.facts.vocab_size, eos=frozenset())
    budget = ThinkingBudget(tokens=1).bind(vocabulary)
    state = budget.start(vocabulary.encode("<think>"))
    spent = budget.advance(state, (100,))
    assert budget.apply(state, np.zeros(10, np.float32)).max() == 0
    forced = budget.apply(spent, np.zeros(thinker.facts.vocab_size, np.float32))
    assert np.isfinite(forced).sum() == 1
    assert int(forced.argmax()) == vocabulary.encode("</think>")[0]


@pytest.mark.parametrize("prompt", ["def f(x): <think>", "def f(x):\n<think>\n"])
def test_a_tag_is_found_however_it_is_cut_into_tokens(thinker: Runner, prompt: str) -> None:
    result = thinker.generate(prompt, max_tokens=20, search="greedy", processors=[ThinkingBudget(tokens=3)])
    assert result.text.count("</think>") >= 1
    assert result.text.find("</think>") <= len(thinker.generate(prompt, max_tokens=3, search="greedy").text)


def test_tags_that_are_control_tokens_are_seen_and_forced(pycoder_bundle: Bundle) -> None:
    with Runner.open(pycoder_bundle.path) as runner:
        inner = tokenizers.Tokenizer.from_file(str(pycoder_bundle.path / "tokenizer.json"))
        inner.add_special_tokens(["<think>", "</think>"])
        tokenizer = Tokenizer(inner)
        opened, closed = (int(inner.token_to_id(tag) or 0) for tag in ("<think>", "</think>"))
        assert tokenizer.decode([opened, 100, closed]).startswith("<think>")
        assert opened not in tokenizer.encode("<think>")
        vocabulary = TokenizerVocabulary(tokenizer, runner.facts.vocab_size + 2)
        budget = ThinkingBudget(tokens=1).bind(vocabulary)
        state = budget.advance(budget.start((opened,)), (100,))
        assert int(budget.apply(state, np.zeros(vocabulary.size, np.float32)).argmax()) == closed


class Eager:
    """A vocabulary with tags as control tokens, and a model that would close every thought at once."""

    def __init__(self, bundle: Bundle) -> None:
        inner = tokenizers.Tokenizer.from_file(str(bundle.path / "tokenizer.json"))
        inner.add_special_tokens(["<think>", "</think>"])
        self.opened, self.closed = (int(inner.token_to_id(tag) or 0) for tag in ("<think>", "</think>"))
        self.vocabulary = TokenizerVocabulary(Tokenizer(inner), inner.get_vocab_size(), eos=frozenset({0}))

    def thought(self, budget: ThinkingBudget, wanted: Sequence[int]) -> list[int]:
        """What it thinks until a thought is closed; of what is banned and forced, it wants these tokens most."""
        bound, found = budget.bind(self.vocabulary), list[int]()
        state = bound.start((self.opened,))
        while state.thinking:
            scores = np.linspace(0, -1, self.vocabulary.size, dtype=np.float32)
            scores[list(wanted)] = np.arange(len(wanted), 0, -1)
            found.append(int(bound.apply(state, scores).argmax()))
            state = bound.advance(state, (found[-1],))
        return found


@pytest.fixture(scope="module")
def eager(pycoder_bundle: Bundle) -> Eager:
    return Eager(pycoder_bundle)


@settings(max_examples=30)
@given(st.integers(0, 9), st.integers(0, 9))
def test_a_thought_is_as_long_as_its_bounds_ask_for(eager: Eager, least: int, beyond: int) -> None:
    end = (eager.closed, 0)
    found = eager.thought(ThinkingBudget(tokens=least + beyond, minimum=least), end)
    assert found == [1] * least + [eager.closed]


@settings(max_examples=12)
@given(st.integers(1, 12))
def test_a_model_that_would_stop_thinking_is_told_to_wait(eager: Eager, least: int) -> None:
    wait = list(eager.vocabulary.encode(" Wait, no"))
    assert len(wait) > 1
    *thought, last = eager.thought(ThinkingBudget(tokens=50, minimum=least, more=" Wait, no"), (eager.closed,))
    assert last == eager.closed
    assert thought == wait * -(-least // len(wait))
    ended = eager.thought(ThinkingBudget(tokens=50, minimum=least, more=" Wait, no"), (0, eager.closed))
    assert ended == [*thought, *[0] * (50 - len(thought)), eager.closed]


def test_what_a_model_says_itself_is_not_taken_for_more(eager: Eager) -> None:
    first = eager.vocabulary.encode(" Wait, no")[0]
    found = eager.thought(ThinkingBudget(tokens=6, minimum=4, more=" Wait, no"), (first,))
    assert found == [first] * 6 + [eager.closed]


def test_a_tag_in_many_tokens_is_not_completed_too_early(thinker: Runner) -> None:
    vocabulary = TokenizerVocabulary(thinker.tokenizer, thinker.facts.vocab_size, eos=frozenset())
    tag = vocabulary.encode("</think>")
    assert len(tag) > 1
    budget = ThinkingBudget(tokens=99, minimum=40).bind(vocabulary)
    state = budget.advance(budget.start(vocabulary.encode("<think>")), tag[:-1])
    banned = np.flatnonzero(np.isneginf(budget.apply(state, np.zeros(vocabulary.size, np.float32))))
    texts = {vocabulary.decode((int(token),)) for token in banned}
    assert vocabulary.decode(tag[-1:]) in texts
    rest = "</think>".removeprefix(vocabulary.decode(tag[:-1]))
    assert all(text.startswith(rest) for text in texts)
    result = thinker.generate("x<think>", max_tokens=30, search="greedy", processors=[ThinkingBudget(12, minimum=9)])
    assert "</think>" in result.text


def test_budgets_that_cannot_end_a_thought_are_refused() -> None:
    with pytest.raises(OptionError, match="-1; it must be 0"):
        ThinkingBudget(tokens=-1)
    with pytest.raises(OptionError, match="which closes it"):
        ThinkingBudget(tokens=3, ending="enough")
    with pytest.raises(OptionError, match=r"minimum is 4; it must be from 0 to tokens \(3\)"):
        ThinkingBudget(tokens=3, minimum=4)
    with pytest.raises(OptionError, match="before its minimum; give one"):
        ThinkingBudget(tokens=3, more="Wait")
    with pytest.raises(OptionError, match="which would close the thought"):
        ThinkingBudget(tokens=3, minimum=1, more="</think> Wait")
