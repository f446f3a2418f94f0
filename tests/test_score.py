"""tests: how probable a bundle holds given texts: against transformers, and by the chain rule."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from click.testing import CliRunner

from edgewise.bundle.read import Bundle
from edgewise.cli.score import score as command
from edgewise.errors import ContextOverflow, GenerationError, OptionError
from edgewise.runtime.runner import Runner
from edgewise.runtime.score import Score, score
from edgewise.search.logprobs import logprob, most_probable
from edgewise.search.protocol import LogProb
from toy import CONTEXT, VOCABULARY, toy

PROMPT, TEXT = "def read_json(path):\n    ", "with open(path) as f:\n        return json.load(f)"


def test_scores_are_those_of_transformers(float_runner: Runner, pycoder: Path) -> None:
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(pycoder, dtype=torch.float32)
    before, after = float_runner.tokenizer.encode(PROMPT), float_runner.tokenizer.encode_within(TEXT)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for a model this small, seven times faster than two
    with torch.no_grad():
        logits = model(torch.tensor([[*before, *after]])).logits[0].double().log_softmax(-1)
    torch.set_num_threads(threads)
    found = float_runner.score(PROMPT, TEXT, top=3)
    assert found.tokens == after
    for place, each in enumerate(found.logprobs, len(before) - 1):
        expected = logits[place].topk(3)
        assert each.logprob == pytest.approx(float(logits[place, each.token]), abs=1e-4)
        assert [token for token, _ in each.top] == expected.indices.tolist()
        np.testing.assert_allclose([value for _, value in each.top], expected.values, atol=1e-4)


def test_a_text_is_as_probable_as_its_parts_one_after_the_other(float_runner: Runner) -> None:
    """log Pr(y | x) = log Pr(x, y) - log Pr(x)."""
    before, after = float_runner.tokenizer.encode(PROMPT), float_runner.tokenizer.encode_within(TEXT)
    whole, first = float_runner.score("", before + after), float_runner.score("", before)
    assert float_runner.score(before, after).total == pytest.approx(whole.total - first.total, abs=1e-4)
    assert len(whole.logprobs) == len(before + after) - 1


def test_several_texts_have_the_scores_that_each_has_alone(float_runner: Runner) -> None:
    texts = (TEXT, "pass  # nothing", "return None\n", TEXT)
    for prompt in (PROMPT, ""):
        for text, found in zip(texts, float_runner.scores(prompt, texts), strict=True):
            alone = float_runner.score(prompt, text)
            assert found.tokens == alone.tokens
            assert found.total == pytest.approx(alone.total, abs=1e-4)


def test_a_greedy_text_is_the_most_probable_token_by_token(float_runner: Runner) -> None:
    result = float_runner.generate(PROMPT, max_tokens=20, search="greedy", logprobs=1)
    found = float_runner.score(PROMPT, result.tokens, top=1)
    assert [each.top[0][0] for each in found.logprobs] == list(result.tokens)
    total = sum(each.logprob for each in result.logprobs)
    assert found.total == pytest.approx(total, abs=1e-3)
    assert found.perplexity == pytest.approx(math.exp(-total / 20), rel=1e-3)


def test_long_texts_are_scored_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = toy(tmp_path)
    text = np.random.default_rng(0).integers(1, VOCABULARY - 1, CONTEXT - 3).tolist()
    (whole,) = score(model, (1, 2, 3), [text], top=2)
    monkeypatch.setattr("edgewise.runtime.score.SCORES", 0)
    (parts,) = score(model, (1, 2, 3), [text], top=2)
    assert parts.tokens == whole.tokens == tuple(text)
    np.testing.assert_allclose([e.logprob for e in parts.logprobs], [e.logprob for e in whole.logprobs], atol=1e-4)


@pytest.mark.parametrize(
    ("prompt", "text", "top", "error", "message"),
    [
        ("x", "", 0, GenerationError, "a text has no token$"),
        ("", (5,), 0, GenerationError, "a text has no token but its first"),
        ("x", "y", -1, OptionError, "top is -1"),
        ("x", (1,) * 5000, 0, ContextOverflow, "the prompt has 1 tokens and the text 5,000; the context is"),
        ("x", (10**6,), 0, GenerationError, "token 1000000 does not exist"),
    ],
)
def test_what_cannot_be_scored_is_one_line(
    float_runner: Runner, prompt: str, text: Any, top: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        float_runner.score(prompt, text, top=top)


def test_log_probabilities_are_those_of_a_softmax_in_float64() -> None:
    scores = np.random.default_rng(0).normal(50, 8, 151_936).astype(np.float32)
    exact = scores.astype(np.float64) - np.log(np.exp(scores.astype(np.float64) - 100).sum()) - 100
    found = logprob(scores, 7, 5)
    order = np.argsort(-scores, kind="stable")[:5]
    assert found.logprob == pytest.approx(exact[7], abs=1e-5)
    assert [token for token, _ in found.top] == order.tolist()
    np.testing.assert_allclose([value for _, value in found.top], exact[order], atol=1e-5)


def test_equal_scores_are_in_order_of_their_tokens_and_banned_ones_come_last() -> None:
    scores = np.array([1, 3, -np.inf, 3, 1, 3], np.float32)
    assert most_probable(scores, 4).tolist() == [1, 3, 5, 0]
    assert most_probable(scores, 99).tolist() == [1, 3, 5, 0, 4, 2]
    assert logprob(scores, 2) == LogProb(2, -math.inf)
    assert Score((LogProb(2, -math.inf),)).perplexity == math.inf


def test_the_command_line_tells_the_scores_of_texts(pycoder_bundle: Bundle) -> None:
    arguments = [str(pycoder_bundle.path), "import ", "os", "numpy"]
    shown = CliRunner().invoke(command, arguments)
    told = CliRunner().invoke(command, [*arguments, "--json", "--top", "1"])
    with Runner.open(pycoder_bundle.path) as runner:
        scores = runner.scores("import ", ["os", "numpy"])
    assert [line.split()[:2] for line in shown.stdout.splitlines()[1:]] == [
        [text, f"{each.total:.3f}"] for text, each in zip(("os", "numpy"), scores, strict=True)
    ]
    assert [len(row["logprobs"][0]["top"]) for row in json.loads(told.stdout)] == [1, 1]
    assert "needs '--json'" in CliRunner().invoke(command, [*arguments, "--top", "1"]).stderr
