"""tests: bundles with fewer tokens: the tokenizer and every number in their files agree, and they say what they did."""

import json
import re
import shutil
from pathlib import Path

import pytest

from edgewise.bundle.read import Bundle
from edgewise.calibration.texts import CalibrationText
from edgewise.errors import EdgewiseError, OptionError, RecipeError
from edgewise.pipeline import build
from edgewise.plan import plan_build
from edgewise.quality.evaluate import evaluate
from edgewise.recipe import Recipe, RecipeStep
from edgewise.runtime.runner import Runner
from edgewise.text.tokenizer import Tokenizer

PROMPTS = 24


def recipe(text: Path | str, *after: RecipeStep, **options: object) -> Recipe:
    return Recipe((RecipeStep("prune-vocabulary", {"text": str(text), **options}), *after))


def held_out(pycoder: Path) -> CalibrationText:
    return CalibrationText(pycoder / "heldout.txt", tokens=1024, length=128)


@pytest.fixture(scope="module")
def seen(pycoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some of the demo's text: much of its vocabulary is not in it."""
    path = tmp_path_factory.mktemp("seen") / "seen.txt"
    path.write_text((pycoder / "heldout.txt").read_text("utf-8")[:100_000], "utf-8")
    return path


@pytest.fixture(scope="module")
def small(pycoder: Path, seen: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The demo in float32 with the tokens of that text."""
    output = tmp_path_factory.mktemp("small") / "small.edge"
    return build(pycoder, output=output, recipe=recipe(seen), quality=held_out(pycoder))


def table(bundle: Bundle, name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((bundle.path / name).read_text("utf-8"))
    return found


def test_every_file_tells_the_same_tokens(small: Bundle, pycoder: Path) -> None:
    facts, tokenizer = small.manifest.language_model, Tokenizer.load(small.path)
    assert facts.vocab_size % 64 == 0
    assert facts.vocab_size < 3072
    assert list(tokenizer.vocabulary) == list(range(facts.vocab_size))
    control = Tokenizer.load(pycoder).control
    assert tokenizer.control == control  # the demo's are its first tokens
    assert table(small, "config.json")["vocab_size"] == facts.vocab_size
    genai = table(small, "genai_config.json")["model"]
    assert isinstance(genai, dict)
    assert (genai["vocab_size"], genai["pad_token_id"]) == (facts.vocab_size, facts.pad)
    stored = small.manifest.card["parts"]["embedding"]
    assert stored["after"] == 4 * facts.vocab_size * facts.hidden_size


def test_where_no_token_is_missed_the_text_is_that_of_the_whole_model(
    small: Bundle, float_runner: Runner, pycoder: Path
) -> None:
    lines = [line for line in (pycoder / "heldout.txt").read_text("utf-8").splitlines() if line.startswith("def ")]
    kept, compared = set(Tokenizer.load(small.path).vocabulary.values()), 0
    with Runner.open(small.path, threads=1) as runner:
        for prompt in lines[:PROMPTS]:
            theirs = float_runner.generate(prompt, max_tokens=8, search="greedy")
            used = {*float_runner.tokenizer.encode(prompt), *theirs.tokens}
            if {float_runner.tokenizer.vocabulary[token] for token in used} <= kept:
                assert runner.generate(prompt, max_tokens=8, search="greedy").text == theirs.text
                compared += 1
    assert compared >= PROMPTS // 3


def test_it_is_judged_against_the_checkpoint_over_the_tokens_that_are_left(small: Bundle) -> None:
    found = small.manifest.card["quality"]
    assert found["mean_kld"] < 1e-6
    assert found["top1"] == 1


def test_another_vocabulary_is_not_compared(small: Bundle, pycoder: Path) -> None:
    with pytest.raises(OptionError, match=r"cannot be compared; a build with --quality-text compares those of the"):
        evaluate(small.path, held_out(pycoder), against=pycoder)


def test_it_is_calibrated_in_its_own_tokens_and_says_what_they_are_worth(
    pycoder: Path, seen: Path, tmp_path: Path
) -> None:
    after = RecipeStep("quantize", {"bits": 8, "method": "grid"})  # which takes what enters the matrices
    text = CalibrationText(pycoder / "calibration.txt", tokens=512, length=128)
    bundle = build(pycoder, output=tmp_path / "small.edge", recipe=recipe(seen, after), calibration=text)
    with Runner.open(bundle.path) as runner:
        assert runner.generate("def add(a, b):", max_tokens=8).tokens
    (said,) = bundle.manifest.card["remarks"]
    count = bundle.manifest.language_model.vocab_size
    pattern = rf"{count:,} of 4,096 tokens are left, which had (\d\d\.\d\d)% of the probability on calibration.txt"
    found = re.fullmatch(pattern, said)
    assert found
    assert 80 < float(found[1]) < 100
    assert said in (bundle.path / "README.md").read_text("utf-8")


def test_a_plan_knows_the_smaller_vocabulary(pycoder: Path, seen: Path) -> None:
    whole, plan = plan_build(pycoder, recipe=Recipe()), plan_build(pycoder, recipe=recipe(seen))
    assert plan.parts["embedding"].after < 0.75 * whole.parts["embedding"].after
    assert plan.download < whole.download - 1_000_000
    assert plan.remarks[0].endswith("of 4,096 tokens are left")


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([("prune-vocabulary", {})], "'prune-vocabulary' without a text of its own needs a calibration text"),
        ([("prune-vocabulary", {"text": "no.txt"})], "text no.txt does not exist; expected a file, or a folder"),
        ([("prune-vocabulary", {"text": "empty.txt"})], "text empty.txt is empty: every token would go that is not"),
        ([("prune-vocabulary", {"multiple": 0})], "multiple: 0 is not 1 or more"),
        (
            [("quantize", {"bits": 8}), ("prune-vocabulary", {"text": "some.txt"})],
            r"is quantized already .*'prune-vocabulary' comes before",
        ),
    ],
)
def test_what_cannot_be_is_one_line(
    steps: list[tuple[str, dict[str, object]]],
    message: str,
    pycoder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").touch()
    (tmp_path / "some.txt").write_text("def add", "utf-8")
    with pytest.raises(EdgewiseError, match=message) as raised:
        plan_build(pycoder, recipe=Recipe(tuple(RecipeStep(name, options) for name, options in steps)))
    assert isinstance(raised.value, RecipeError)
    assert "\n" not in str(raised.value)


def test_a_conversation_is_spelled_as_before(pycoder: Path, seen: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(pycoder, tmp_path / "talker")
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ 'BEGIN of ' + m.role + '\\n' + m.content }} importlib {% endfor %}"
    )
    pruned = build(folder, output=tmp_path / "talker.edge", recipe=recipe(seen), load_check=False)
    new, old = Tokenizer.load(pruned.path), Tokenizer.load(folder)
    for text in ("BEGIN of ", " importlib ", "assistant\n", "user"):
        assert [new.decode((token,)) for token in new.encode(text)] == [old.decode((t,)) for t in old.encode(text)]
