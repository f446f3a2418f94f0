"""tests: bundles for Arm: formats that its kernels are made for; any processor computes the same with them."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgewise.bundle.read import Bundle
from edgewise.pipeline import build
from edgewise.runtime.model import Model
from edgewise.runtime.session import Session


@pytest.fixture(scope="module")
def bundle(pycoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    output = tmp_path_factory.mktemp("arm") / "pycoder.edge"
    return build(pycoder, target="cpu-arm64", output=output, prefill="int8", load_check=False)


def nodes(bundle: Bundle, graph: str) -> list[onnx.NodeProto]:
    return list(onnx.load(bundle.graph(graph), load_external_data=False).graph.node)


def test_products_are_what_kleidiai_multiplies(bundle: Bundle) -> None:
    """4 bits in blocks of 32, no zero points, activations of 8 bits: https://github.com/ARM-software/kleidiai."""
    products = [node for node in nodes(bundle, "decode") if node.op_type == "MatMulNBits"]
    assert len(products) == 5 * bundle.manifest.language_model.layers + 1
    for node in products:
        given = {each.name: each.i for each in node.attribute}
        assert (given["bits"], given["block_size"], given["accuracy_level"]) == (4, 32, 4)
        assert len(node.input) < 4 or not node.input[3]


def test_the_graph_is_that_of_other_processors_but_for_its_formats(bundle: Bundle, two_graphs: Bundle) -> None:
    for graph in ("decode", "prefill"):
        found, expected = (Counter(node.op_type for node in nodes(each, graph)) for each in (bundle, two_graphs))
        assert found == expected


def test_both_graphs_of_a_bundle_for_arm_agree_here(bundle: Bundle) -> None:
    tokens = np.random.default_rng(2).integers(4, 4096, 150).tolist()
    decoded, prompted = (
        Session(Model.load(bundle.path, bundle.manifest, threads=1, only=graph), capacity=150).prefill(tokens)[-1]
        for graph in ("decode", "prefill")
    )
    assert np.corrcoef(decoded, prompted)[0, 1] > 0.98
