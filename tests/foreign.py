"""tests: decoders that optimum-onnx 0.1.0 has exported, beside the tiny random checkpoints that they are of.

`tests/fixtures/foreign/NAME` is a checkpoint of transformers 4.57, and `model.onnx` what optimum made of it.
"""

import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
import transformers
from numpy.typing import NDArray

import edgewise.prepare
from edgewise.bundle.manifest import CPU
from edgewise.checkpoint import Checkpoint
from edgewise.graph import get_facts
from edgewise.hidden import HIDDEN, add_hidden_states
from edgewise.search.protocol import FloatArray
from edgewise_exporters.foreign import adopt
from edgewise_exporters.optimum.load import load
from edgewise_exporters.optimum.tidy import tidy
from edgewise_exporters.optimum.weights import Weights
from edgewise_exporters.optimum.workplace import Workplace

FIXTURES = Path(__file__).parent / "fixtures/foreign"
NAMES = ("bloom", "gpt2", "gpt_neo", "gpt_neox", "llama", "opt")
TEXT = "the quick brown fox"
LENGTH = 40
STEPS = 32


@dataclass(frozen=True)
class Oracle:
    """What transformers computes of a checkpoint, in float32."""

    tokens: tuple[int, ...]
    logits: NDArray[np.float32]  # [tokens, vocabulary]
    greedy: tuple[int, ...]  # after all of them, where no pair of tokens comes twice


@cache
def oracle(name: str) -> Oracle:
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(FIXTURES / name, dtype=torch.float32)
    model.generation_config.eos_token_id = None
    tokens = torch.from_numpy(np.random.default_rng(8).integers(3, 264, (1, LENGTH)))
    with torch.no_grad():
        logits = model(tokens).logits[0].numpy()
        greedy = model.generate(tokens, max_new_tokens=STEPS, do_sample=False, no_repeat_ngram_size=2)
    return Oracle(tuple(tokens[0].tolist()), logits, tuple(greedy[0, LENGTH:].tolist()))


def exported(name: str) -> ir.Model:
    """The graph as the exporter `optimum` has it from the other Python, with the checkpoint's names."""
    checkpoint = Checkpoint.open(FIXTURES / name)
    place = Workplace(checkpoint)
    shutil.copy(FIXTURES / name / "model.onnx", place.output)
    model = load(place, "model.onnx")
    tidy(model, Weights(checkpoint))
    return model


def adopted(name: str) -> ir.Model:
    """What it makes of that graph; a new one each time."""
    return _adopted(name).clone()


@cache
def _adopted(name: str) -> ir.Model:
    return adopt(exported(name), Checkpoint.open(FIXTURES / name))


class Scores:
    """What the exported graph gives for a text when it reads it from its first token on, with nothing cached."""

    def __init__(self, name: str) -> None:
        model = adopted(name)
        add_hidden_states(model)
        self.graph = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=[CPU.name])
        self.facts = get_facts(model)
        self.known: dict[tuple[int, ...], tuple[FloatArray, FloatArray]] = {}

    def logits(self, text: tuple[int, ...]) -> FloatArray:
        return self._after(text)[0]

    def hidden(self, text: tuple[int, ...]) -> FloatArray:
        return self._after(text)[1]

    def _after(self, text: tuple[int, ...]) -> tuple[FloatArray, FloatArray]:
        if text not in self.known:
            tokens = np.array([text])
            feeds = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
            feeds["position_ids"] = np.arange(len(text))[None]
            inputs = {value.name: value.shape for value in self.graph.get_inputs()}
            pasts = [name for name in inputs if name not in feeds]
            feeds |= {past: np.zeros((1, inputs[past][1], 0, inputs[past][3]), np.float32) for past in pasts}
            given = {name: array for name, array in feeds.items() if name in inputs}
            logits, hidden = self.graph.run(["logits", HIDDEN], given)
            self.known[text] = logits[0, -1], hidden[0, -1]
        return self.known[text]


def export_by_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds take the graphs that lie beside the checkpoints."""
    monkeypatch.setattr(edgewise.prepare, "export_graph", lambda source, **_: adopted(source.name))
