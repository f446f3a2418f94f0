"""exporters, optimum: the exporter itself."""

from typing import cast

import onnx_ir as ir

from edgewise.checkpoint import Checkpoint
from edgewise.contracts import Offer, Refusal
from edgewise.encoders import encoder_facts
from edgewise.errors import CheckpointError
from edgewise.facts import EncoderFacts, EncoderTask
from edgewise.graph import role, set_facts
from edgewise_exporters.crossed import join
from edgewise_exporters.foreign import adopt
from edgewise_exporters.optimum.environment import find_python, missing
from edgewise_exporters.optimum.load import load
from edgewise_exporters.optimum.run import run
from edgewise_exporters.optimum.tasks import CLASSIFY, EMBED, GENERATE, TAG, TRANSLATE, task_of
from edgewise_exporters.optimum.tidy import tidy
from edgewise_exporters.optimum.weights import Weights
from edgewise_exporters.optimum.workplace import Workplace

GRAPH = "model.onnx"
HALVES = ("encoder_model.onnx", "decoder_model.onnx", "decoder_with_past_model.onnx")
OUTPUTS = {EMBED: "last_hidden_state", CLASSIFY: "logits", TAG: "logits"}


class Optimum:
    """What optimum-onnx exports: encoders, encoder-decoders and further decoders, in a Python of its own."""

    name: str = "optimum"
    fallback: bool = True  # the graphs of others are canonical

    def supports(self, checkpoint: Checkpoint) -> bool:
        return not isinstance(task_of(checkpoint), Refusal)

    def appraise(self, checkpoint: Checkpoint) -> Offer | Refusal:
        """What it would give, as far as the files of the checkpoint say."""
        task = task_of(checkpoint)
        if isinstance(task, Refusal):
            return task
        cache = "appended" if task in (GENERATE, TRANSLATE) else "none"
        return Offer(task.removesuffix("-with-past"), "traced by torch", cache, lacks=missing())

    def export(self, checkpoint: Checkpoint) -> ir.Model:
        """The graph that torch traces, checked against torch. Raises CheckpointError, OptionError and GraphError."""
        task = task_of(checkpoint)
        if isinstance(task, Refusal):
            raise CheckpointError(task.reason)
        python, place = find_python(), Workplace(checkpoint)
        run(python, place, task)
        return read(place, checkpoint, task)


def read(place: Workplace, checkpoint: Checkpoint, task: str) -> ir.Model:
    """What an export has left in `place.output`, as a graph of ours: the checkpoint's weights and names, and facts.

    Raises CheckpointError where the graph and the configuration disagree.
    """
    graphs = [load(place, name) for name in (HALVES if task == TRANSLATE else (GRAPH,))]
    place.leave()
    for each in graphs:
        tidy(each, Weights(checkpoint))
    if task == TRANSLATE:
        encoder, first, step = graphs
        return join(encoder, first, step, checkpoint)
    (model,) = graphs
    if task == GENERATE:
        return adopt(model, checkpoint)
    _state_encoder(model, checkpoint, cast(EncoderTask, task))
    return model


def _state_encoder(model: ir.Model, checkpoint: Checkpoint, task: EncoderTask) -> None:
    """What an encoder is; CheckpointError where its graph and its configuration disagree."""
    inputs = [str(value.name) for value in model.graph.inputs]
    facts = encoder_facts(checkpoint, task, inputs=inputs, output=OUTPUTS[task])
    _agree(model, facts)
    set_facts(model, facts)


def _agree(model: ir.Model, facts: EncoderFacts) -> None:
    """Raises CheckpointError where the sizes in the graph are not those that the files state."""
    outputs = {str(value.name): value for value in model.graph.outputs}
    if facts.output not in outputs:
        raise CheckpointError(f"the exported graph has no output {facts.output}; it has {', '.join(outputs)}")
    shape = outputs[facts.output].shape
    width = len(facts.labels) or facts.hidden_size
    if shape is None or shape[-1] != width:
        raise CheckpointError(f"the exported graph gives {facts.output} {shape}; config.json says {width} numbers")
    for node in model.graph:
        if role(node) == "embedding" and node.inputs[0] is not None and node.inputs[0].shape is not None:
            rows = node.inputs[0].shape[0]
            if isinstance(rows, int) and rows < facts.vocab_size:
                raise CheckpointError(f"the exported graph has {rows} tokens; config.json says {facts.vocab_size}")
