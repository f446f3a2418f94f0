"""sdk: what a model is, as plain data: written by the exporter, obeyed by lowerings, read by the runner.

Imports nothing heavy: the same record travels in a graph's metadata and in a bundle's manifest.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

EncoderTask = Literal["feature-extraction", "text-classification", "token-classification"]
ENCODER_TASKS: tuple[str, ...] = get_args(EncoderTask)

# By task: what runs a bundle, for who tries something else.
RUN_BY = {
    "text-generation": "edgewise run and edgewise.Runner",
    "text2text-generation": "edgewise run and edgewise.Runner",
    "feature-extraction": "edgewise embed and edgewise.Encoder",
    "text-classification": "edgewise classify and edgewise.Encoder",
    "token-classification": "edgewise classify and edgewise.Encoder",
}

CACHE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}  # of one element


@dataclass(frozen=True)
class Rotary:
    """One rotary position embedding (arXiv 2104.09864): what a cos/sin table is computed from.

    `dim` is the number of rotated dimensions of a head; `parameters` are the scaling's own numbers, named as in
    the checkpoint's configuration. Types `dynamic` and `longrope` depend on the context that a session asks for.
    """

    dim: int
    theta: float
    type: Literal["default", "linear", "dynamic", "llama3", "yarn", "longrope"] = "default"
    interleaved: bool = False
    original_context: int = 0
    parameters: Mapping[str, float | tuple[float, ...]] = field(default_factory=dict)

    @property
    def follows_context(self) -> bool:
        """Whether the table differs with the context that a session asks for."""
        return self.type in ("dynamic", "longrope")


@dataclass(frozen=True)
class Attention:
    """What one layer's attention computes. A lowering translates every field, or refuses it by name.

    Without a scale only its sizes are known: the graph, which others have exported, spells the rest out.
    """

    heads: int
    kv_heads: int
    head_dim: int
    scale: float | None
    window: int | None = None  # a query sees itself and the window - 1 keys before it
    softcap: float = 0.0  # 0: none; otherwise scores become softcap * tanh(scores / softcap)
    rotary: str | None = "global"  # which of Facts.rotary; None: no position embedding
    qk_norm: Literal["none", "head", "full"] = "none"  # RMS norm of each head, or of the whole projection
    cache: Literal["float32", "float16", "bfloat16", "int8"] = "float32"  # how keys, once rotated, and values are kept
    sinks: bool = False  # each head has a score of its own more, that takes a share of the softmax and adds nothing
    relative: bool = False  # scores have a learned number added, for each distance and head
    ring: int = 0  # positions that its cache keeps, the last ones; 0: all (a lowering decides: `edgewise.rings`)

    def kept(self, tokens: int) -> int:
        """Positions of so many tokens that its cache keeps."""
        return min(tokens, self.ring) if self.ring else tokens

    @property
    def stated(self) -> bool:
        """Whether all that it computes is known."""
        return self.scale is not None


@dataclass(frozen=True)
class Experts:
    """One layer's mixture of experts: how many there are, and how a token's gates come from its router."""

    count: int
    active: int  # that each token is given to: those of the best scores
    normalized: bool  # the gates of the active ones add up to 1; otherwise they are the scores
    scores: Literal["softmax", "sigmoid"] = "softmax"  # over all logits of the router, or of each
    corrected: bool = False  # they are chosen by scores plus a number for each expert, which gates are without
    groups: int = 1  # above 1: chosen among the experts of some groups, whose two best add up to the most
    active_groups: int = 1
    scale: float = 1.0  # of the gates
    equal: bool = False  # the gates of the active ones are 1, whatever the softmax says
    evaluated: float | None = None  # of the active ones, where some are skipped: mean over a text; None: all of them


@dataclass(frozen=True)
class Source:
    """The encoder of an encoder-decoder: it reads the prompt, and the decoder begins an answer with `start`."""

    layers: int
    heads: int
    head_dim: int
    context_length: int  # tokens of a prompt
    start: int


@dataclass(frozen=True)
class Facts:
    """A decoder-only language model, as far as its runner and its lowerings need to know it."""

    model_type: str
    vocab_size: int
    hidden_size: int
    context_length: int
    attention: tuple[Attention, ...]  # one a layer
    rotary: Mapping[str, Rotary] = field(default_factory=dict)
    bos: int | None = None
    eos: tuple[int, ...] = ()
    pad: int | None = None
    tied: bool = False  # embedding and lm_head are one matrix
    experts: tuple[Experts | None, ...] = ()  # one a layer, None: a dense MLP; empty: no layer has experts
    learned_positions: bool = False  # the embedding adds them: keys and values cannot move to other positions
    task: Literal["text-generation", "text2text-generation"] = "text-generation"
    source: Source | None = None  # of an encoder-decoder

    @property
    def layers(self) -> int:
        return len(self.attention)

    @property
    def stated(self) -> bool:
        """Whether all that the attention of every layer computes is known."""
        return all(attention.stated for attention in self.attention)

    @property
    def original_context(self) -> int:
        """The longest context with the rotary tables that were trained; beyond it, those that follow change."""
        originals = [rotary.original_context for rotary in self.rotary.values() if rotary.follows_context]
        return min([self.context_length, *originals])

    @property
    def active_experts(self) -> float:
        """The share of all experts that a token is given to, on average; 1 in a dense model."""
        mixtures = [mixture for mixture in self.experts if mixture]
        count = sum(mixture.count for mixture in mixtures)
        return sum(mixture.evaluated or mixture.active for mixture in mixtures) / count if count else 1.0

    def cache_bytes(self, tokens: int) -> int:
        """Bytes of keys and values for so many tokens of one sequence."""
        return sum(2 * a.kv_heads * a.head_dim * CACHE_BYTES[a.cache] * a.kept(tokens) for a in self.attention)


@dataclass(frozen=True)
class EncoderFacts:
    """A model that reads a text as a whole, and gives a vector or labels: what its runner needs to know.

    Its graph gives `output`: a row for each token, `[batch, sequence, width]`, or for each text, `[batch, width]`.
    """

    task: EncoderTask
    model_type: str
    vocab_size: int
    hidden_size: int
    layers: int
    context_length: int  # tokens of a text, with special ones; of a longer text, the end is not read
    output: str  # name of the graph's output that is read
    inputs: tuple[str, ...] = ("input_ids", "attention_mask")  # of the graph, each int64 [batch, sequence]
    pad: int = 0  # the token that fills up the shorter texts of a batch
    pooling: Literal["mean", "cls", "last"] | None = None  # of hidden states to one vector; None: the graph does that
    normalized: bool = False  # vectors have length 1
    lower_case: bool = False  # texts are, before the tokenizer sees them
    prompts: Mapping[str, str] = field(default_factory=dict)  # by name: what is put before a text
    prompt: str | None = None  # the name of the one that is used unless another is asked for
    labels: tuple[str, ...] = ()  # of the classifier, in the order of its scores
    scores: Literal["softmax", "sigmoid", "none"] = "softmax"  # sigmoid: each label by itself; none: as they are


AnyFacts = Facts | EncoderFacts  # told apart by their task
