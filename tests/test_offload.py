"""tests: offload: hit rates against caches that are simulated step by step, and what a plan makes of them."""

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny
from edgewise.calibration.collect import collect
from edgewise.calibration.texts import CalibrationText
from edgewise.calibration.trace import trace
from edgewise.cli.main import execute
from edgewise.errors import GraphError, OptionError, RecipeError, TargetError
from edgewise.exporters import export_graph
from edgewise.offload import plan_offload
from edgewise.planner.offload import offload, popular_misses, recent_misses
from edgewise.planner.outlook import Outlook
from edgewise.prepare import open_checkpoint, prepare
from edgewise.recipe import Recipe, RecipeStep
from edgewise.registry import registry
from edgewise.target import Target
from edgewise.text.tokenizer import Tokenizer

PI = "raspberry-pi-5"
FLOATS = Recipe()

pytestmark = pytest.mark.usefixtures("cache")

routings = st.integers(1, 6).flatmap(
    lambda experts: st.lists(st.lists(st.booleans(), min_size=experts, max_size=experts), min_size=1, max_size=30)
)


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory, pycoder: Path) -> Path:
    """A tiny mixtral with the demo's tokenizer: 5 experts in each of 4 layers, a token goes to 2."""
    folder = tiny.checkpoint("mixtral", tmp_path_factory.mktemp("mixture") / "moe", vocab_size=4096)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((pycoder / name).read_bytes())
    return folder


@pytest.fixture
def text(pycoder: Path) -> CalibrationText:
    return CalibrationText(pycoder / "heldout.txt", 256, 64)


def simulated(tokens: np.ndarray, resident: int) -> int:
    """Misses of a cache as a list, the one that was used last at the end."""
    cache: list[int] = []
    misses = 0
    for token in tokens:
        for expert in range(len(token)):
            if not token[expert]:
                continue
            misses += expert not in cache
            cache = ([other for other in cache if other != expert] + [expert])[-resident:] if resident else []
    return misses


@given(routings, st.integers(0, 6))
def test_those_that_were_used_last_are_kept_as_in_a_simulation(tokens: list[list[bool]], resident: int) -> None:
    chosen = np.array(tokens)
    assert recent_misses(chosen, resident) == simulated(chosen, resident)


@given(routings, st.integers(0, 6))
def test_no_fixed_choice_of_experts_misses_less_than_the_popular_ones(tokens: list[list[bool]], resident: int) -> None:
    chosen = np.array(tokens)
    experts = range(chosen.shape[1])
    resident = min(resident, len(experts))
    fixed = [
        sum(int(chosen[:, expert].sum()) for expert in experts if expert not in kept)
        for kept in combinations(experts, resident)
    ]
    assert popular_misses(chosen, resident) == min(fixed)


def test_the_trace_is_what_the_router_counts_say(mixture: Path, text: CalibrationText) -> None:
    model, sequences = export_graph(open_checkpoint(mixture)), text.sequences(Tokenizer.load(mixture))
    found, counted = trace(model, sequences), collect(model, sequences).experts
    assert sorted(found) == [0, 1, 2, 3]
    for layer, chosen in found.items():
        assert chosen.shape == (sequences.size, 5)
        assert set(chosen.sum(axis=1)) == {2}
        assert chosen.sum(axis=0).tolist() == counted[layer].counts.tolist()


# An expert in float32 takes 3 x 64 x 64 x 4 = 49,152 bytes, and the storage gives 85 MB a second.
def test_what_is_not_in_memory_is_read_in_the_time_that_the_storage_takes(mixture: Path, text: CalibrationText) -> None:
    found = plan_offload(mixture, resident=3, text=text, target=PI, recipe=FLOATS)
    step = 1 / found.all_resident
    for each in (found.popular, found.recent):
        misses = (1 - each.hits) * 2 * 4  # a token goes to two experts in each of four layers
        assert each.tokens_per_s == pytest.approx(1 / (step + misses * 49_152 / 85e6))
        assert 0 < each.hits < 1
    whole = plan_offload(mixture, resident=5, text=text, target=PI, recipe=FLOATS)
    assert whole.popular.hits == 1
    assert whole.popular.tokens_per_s == whole.all_resident
    assert whole.memory - found.memory == 2 * 4 * 49_152 - 2 * 49_152  # less those of a token, which need room
    none = plan_offload(mixture, resident=0, text=text, target=PI, recipe=FLOATS)
    assert none.popular.hits == none.recent.hits == 0


def test_what_cannot_be_offloaded_is_refused(mixture: Path, pycoder: Path, text: CalibrationText) -> None:
    with pytest.raises(GraphError, match="the model is dense: it has no experts that could stay in storage"):
        plan_offload(pycoder, resident=1, text=text, target=PI)
    with pytest.raises(OptionError, match="resident experts: 6 is not from 0 to 5, the experts of a layer"):
        plan_offload(mixture, resident=6, text=text, target=PI, recipe=FLOATS)
    with pytest.raises(TargetError, match="the profile of 'cpu-x64' has no figures of its speed"):
        plan_offload(mixture, resident=1, text=text, recipe=FLOATS)
    fewer = Recipe((RecipeStep("active-experts", {"active": 1}),))
    with pytest.raises(RecipeError, match="the recipe changes the experts"):
        plan_offload(mixture, resident=1, text=text, target=PI, recipe=fewer)


def test_a_target_without_a_figure_of_its_storage_says_so(mixture: Path) -> None:
    target: Target = registry().get_target(PI)
    hollow = replace(target, hardware=replace(target.hardware, storage=None))
    prepared = prepare(mixture, target=hollow, recipe=FLOATS, context=None, ignore_config=(), dry=True)
    with pytest.raises(TargetError, match="has no figures of its storage: one of your own may state them"):
        offload(Outlook.of(prepared), {0: np.ones((1, 5), bool)}, resident=1, context=64)


def test_plan_says_what_it_predicts(mixture: Path, pycoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", str(mixture), "--target", PI, "--resident-experts", "2"]
    assert execute(arguments) == 2
    assert "'--resident-experts' and '--text' go together" in capsys.readouterr().err
    arguments += ["--text", str(pycoder / "LICENSE")]
    assert execute(arguments) == 0
    printed = capsys.readouterr().out
    assert "offload   predicted, nothing runs that way yet: 2 experts of a layer in memory" in printed
    assert execute([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["offload"]["resident"] == 2
