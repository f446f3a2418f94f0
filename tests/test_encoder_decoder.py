"""tests: encoder-decoders in the runtime: a prompt is encoded once, and searches run as they do on any decoder."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from edgewise.bundle.read import Bundle, verify
from edgewise.calibration.texts import CalibrationText
from edgewise.cli.main import command_line
from edgewise.errors import (
    BundleError,
    CacheError,
    ContextOverflow,
    EdgewiseError,
    GateError,
    GenerationError,
    OptionError,
    RecipeError,
)
from edgewise.pipeline import build
from edgewise.quality.evaluate import evaluate
from edgewise.quality.gate import Gate
from edgewise.recipe import Recipe, RecipeStep
from edgewise.registry import registry
from edgewise.runtime.runner import Runner
from edgewise.runtime.session import Session
from encdec import SOURCE, encoder_decoder, greedy
from test_every_search import ASSISTED, table

LIMIT = 32
REFUSED = {
    "ensemble": "has a prompt of its own",
    "guided": "has a prompt of its own",
}
SOURCES = (SOURCE, "a cat sat", "the house is small: is it not")


@dataclass(frozen=True)
class Made:
    """A checkpoint in transformers, and its bundle in floats, open."""

    reference: Any
    runner: Runner
    path: Path


@pytest.fixture(scope="module")
def made(home: Path) -> Iterator[Made]:
    reference = encoder_decoder("flan", home / "flan")
    bundle = build(home / "flan", output=home / "flan.edge", recipe=Recipe(), hidden_states=True)
    with Runner.open(bundle.path, threads=1) as runner:
        yield Made(reference, runner, bundle.path)


def tokens(made: Made, text: str) -> list[int]:
    return list(made.runner.tokenizer.encode(text))


@pytest.mark.parametrize("source", SOURCES)
def test_a_greedy_answer_is_that_of_transformers(made: Made, source: str) -> None:
    result = made.runner.generate(source, search="greedy", max_tokens=LIMIT)
    assert list(result.tokens) == greedy(made.reference, tokens(made, source), LIMIT)
    assert result.text == made.runner.tokenizer.decode(result.tokens)
    assert result.timings.prompt_tokens == len(tokens(made, source))


def test_a_source_that_the_encoder_cannot_read_is_one_line(made: Made) -> None:
    with pytest.raises(GenerationError, match=r"^the encoder does not run: [^\n]+$"):
        _ = made.runner.model.given([10**6]).crossed


@pytest.mark.parametrize("beams", [2, 4])
def test_beam_search_finds_what_transformers_finds(made: Made, beams: int) -> None:
    options = {"num_beams": beams, "length_penalty": 1.0, "early_stopping": False}
    found = made.runner.generate(SOURCE, search={"name": "beam", **options}, max_tokens=12)
    with torch.no_grad():
        ids = torch.tensor([tokens(made, SOURCE)])
        expected = made.reference.generate(ids, max_new_tokens=12, do_sample=False, **options)
    assert list(found.tokens) == [token for token in expected[0].tolist()[1:] if token != 1]


@pytest.mark.parametrize("name", registry().searches.names())
def test_every_search_answers_a_source(made: Made, name: str) -> None:
    """One that is greedy at heart says what greedy says; the others what they say again."""
    search, assistants = table(name), [made.runner] if name in ASSISTED else None
    if name in REFUSED:
        with pytest.raises(EdgewiseError, match=REFUSED[name]) as caught:
            made.runner.generate(SOURCE, search=search, seed=3, max_tokens=8)
        assert "\n" not in str(caught.value)
        return
    result = made.runner.generate(SOURCE, search=search, seed=3, max_tokens=8, assistants=assistants)
    again = made.runner.generate(SOURCE, search=search, seed=3, max_tokens=8, assistants=assistants)
    assert result.completions == again.completions
    assert all(len(each.tokens) <= 8 for each in result.completions)
    if name in ("greedy", "speculative", "lookup"):
        assert list(result.tokens) == greedy(made.reference, tokens(made, SOURCE), 8)


def test_an_answer_is_the_same_however_many_are_written_beside_it(made: Made) -> None:
    alone = [made.runner.generate(source, search="greedy", max_tokens=16).tokens for source in SOURCES]
    together = made.runner.generate_batch(SOURCES, search="greedy", max_tokens=16)
    assert [each.tokens for each in together] == alone


def test_a_draft_model_reads_the_same_source(made: Made) -> None:
    drafted = made.runner.generate(SOURCE, search="speculative", assistants=[made.runner], max_tokens=16)
    assert list(drafted.tokens) == greedy(made.reference, tokens(made, SOURCE), 16)
    assert drafted.drafts
    assert drafted.drafts.accepted == drafted.drafts.drafted


def test_a_prompt_is_encoded_once(made: Made) -> None:
    count = len(tokens(made, "do it again"))
    first, second = (made.runner.generate("do it again", max_tokens=4) for _ in range(2))
    assert (first.timings.prompt_tokens_cached, second.timings.prompt_tokens_cached) == (0, count)
    assert first.completions == second.completions
    assert made.runner.prepare("and now this") == made.runner.known_prefix(tokens(made, "and now this"))


def test_prompts_are_forgotten_where_there_is_no_room_for_them(made: Made) -> None:
    with Runner.open(made.path, threads=1, prefix_cache=0) as runner:
        results = [runner.generate(SOURCE, search="greedy", max_tokens=4) for _ in range(2)]
    assert [each.timings.prompt_tokens_cached for each in results] == [0, 0]


def test_sessions_of_one_source_fork_and_rewind(made: Made) -> None:
    model = made.runner.model.given(tokens(made, SOURCE))
    session = Session(model, capacity=8)
    expected = [session.decode(token).argmax() for token in (0, 5, 9)]
    other = session.fork(1)
    assert [other.decode(token).argmax() for token in (5, 9)] == expected[1:]
    session.rewind(0)
    assert session.prefill((0, 5, 9), scores=3).argmax(-1).tolist() == expected


def test_a_context_that_is_full_goes_on_with_a_window(made: Made) -> None:
    with Runner.open(made.path, threads=1, context=12) as runner:
        with pytest.raises(ContextOverflow):
            runner.generate(SOURCE, max_tokens=24)
        result = runner.generate(SOURCE, search="greedy", max_tokens=24, overflow={"name": "window", "sinks": 1})
    assert len(result.tokens) == 24
    assert result.timings.tokens_dropped


def test_a_text_has_the_probability_that_transformers_gives_it(made: Made) -> None:
    text = "it is"
    found = made.runner.score(SOURCE, text)
    answer = torch.tensor([[0, *found.tokens]])
    with torch.no_grad():
        logits = made.reference(input_ids=torch.tensor([tokens(made, SOURCE)]), decoder_input_ids=answer).logits[0]
    expected = logits.log_softmax(-1)[range(len(found.tokens)), found.tokens].sum()
    assert found.total == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize("bits", [4, 8])
def test_all_products_of_both_halves_are_quantized(made: Made, home: Path, bits: int, tmp_path: Path) -> None:
    step = RecipeStep("quantize", {"bits": bits, "block_size": 32, "rules": [{"role": "lm_head", "keep": True}]})
    bundle = build(home / "flan", output=tmp_path / "small.edge", recipe=Recipe(steps=(step,)), load_check=False)
    parts = bundle.manifest.card["parts"]
    assert all(parts[name]["after"] < parts[name]["before"] for name in ("encoder", "cross", "attention", "mlp"))
    assert parts["embedding"]["parameters"] == 160 * 32  # one table, of both
    with Runner.open(bundle.path) as runner:
        found = runner.score(SOURCE, "it is")
    assert found.total == pytest.approx(made.runner.score(SOURCE, "it is").total, abs=5.0 if bits == 4 else 0.5)


def test_a_bundle_is_held_against_its_checkpoint_and_a_gate_may_refuse_it(
    made: Made, home: Path, tmp_path: Path
) -> None:
    (tmp_path / "text").write_text(f"{SOURCE}. the house is small and the cat sat on it. " * 30, "utf-8")
    text, step = CalibrationText(tmp_path / "text", tokens=256, length=64), RecipeStep("quantize", {"bits": 8})
    floats = build(home / "flan", output=tmp_path / "floats.edge", recipe=Recipe(), quality=text, load_check=False)
    found = floats.manifest.card["quality"]
    assert found["mean_kld"] < 1e-9
    assert found["greedy"] == {"tokens": 32, "same": [32] * 4}
    assert evaluate(floats.path, text, against=home / "flan").distance
    strict = Recipe(steps=(step,), gate=Gate(max_mean_kld=1e-4))
    with pytest.raises(GateError, match="mean KL divergence is"):
        build(home / "flan", output=tmp_path / "small.edge", recipe=strict, quality=text, load_check=False)
    measured = Recipe(steps=(RecipeStep("quantize", {"method": "gptq"}),))
    with pytest.raises(RecipeError, match="cannot be measured layer by layer; take methods that measure nothing"):
        build(home / "flan", output=tmp_path / "small.edge", recipe=measured, calibration=text)


@pytest.mark.parametrize(
    ("prompt", "options", "kind", "problem"),
    [
        ("", {}, GenerationError, "the prompt is empty"),
        ("a " * 200, {}, ContextOverflow, "has 4.. tokens, and the encoder of this model reads 96 at most"),
        ("a" * 200_000, {}, ContextOverflow, "the prompt has 200,000 characters"),
        ([160], {}, GenerationError, "token 160 does not exist"),
        ("a", {"max_tokens": 96}, ContextOverflow, "96 new ones make 97"),
    ],
)
def test_a_source_that_cannot_be_read_is_one_clear_line(
    made: Made, prompt: Any, options: dict[str, Any], kind: type[Exception], problem: str
) -> None:
    with pytest.raises(kind, match=problem) as caught:
        made.runner.generate(prompt, **options)
    assert "\n" not in str(caught.value)


def test_what_only_a_decoder_has_is_refused_in_one_line(made: Made, pycoder_bundle: Bundle, tmp_path: Path) -> None:
    runner = made.runner
    with pytest.raises(GenerationError, match="holds no conversation; use: edgewise run"):
        runner.chat([{"role": "user", "content": "hello"}])
    with pytest.raises(GenerationError, match="there is no beginning to save"):
        runner.save_prefix(SOURCE, tmp_path / "prefix")
    with pytest.raises(GenerationError, match="there is no beginning to load"):
        runner.load_prefix(tmp_path / "prefix")
    with pytest.raises(GenerationError, match="has an encoder, which reads a prompt first"):
        runner.session(capacity=4)
    with Runner.open(pycoder_bundle.path) as other, pytest.raises(OptionError, match="assistant 1 has no encoder"):
        runner.generate(SOURCE, search="speculative", assistants=[other])


def test_a_bundle_verifies_and_says_what_it_is_and_one_with_a_file_missing_does_not(made: Made, tmp_path: Path) -> None:
    assert set(verify(made.path).manifest.graphs) == {"encoder", "decoder"}
    shown = CliRunner().invoke(command_line(registry()), ["inspect", str(made.path)]).output
    assert "an encoder of 2 layers reads 96 tokens" in shown
    answer = CliRunner().invoke(
        command_line(registry()), ["run", str(made.path), SOURCE, "--search", "greedy", "--max-tokens", "4"]
    )
    assert answer.exit_code == 0, answer.output
    refused = CliRunner().invoke(command_line(registry()), ["bench", str(made.path)])
    assert "has an encoder, which reads a prompt first" in str(refused.exception)
    assert "An encoder of 2 layers reads prompts of up to 96 tokens" in (made.path / "README.md").read_text("utf-8")
    shutil.copytree(made.path, tmp_path / "damaged.edge")
    (tmp_path / "damaged.edge/onnx/encoder.onnx").unlink()
    with pytest.raises(BundleError, match="onnx is missing"):
        Runner.open(tmp_path / "damaged.edge")


def test_the_state_of_one_source_is_not_read_by_another(made: Made, tmp_path: Path) -> None:
    one, other = (Session(made.runner.model.given(tokens(made, text)), capacity=8) for text in SOURCES[:2])
    one.prefill((0, 5))
    one.save(tmp_path / "one.safetensors")
    with pytest.raises(CacheError, match="or for another source"):
        other.load(tmp_path / "one.safetensors")
