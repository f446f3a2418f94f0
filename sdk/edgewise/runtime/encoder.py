"""sdk, runtime: `Encoder`: texts to vectors, or to labels, by a bundle that was built for it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from edgewise.bundle.manifest import Manifest
from edgewise.bundle.read import Bundle
from edgewise.errors import BundleError, GenerationError
from edgewise.facts import RUN_BY, EncoderFacts
from edgewise.options import known
from edgewise.runtime.labels import Classification, of_text, of_tokens, probabilities
from edgewise.runtime.library import first_line
from edgewise.runtime.ort import open_graph
from edgewise.runtime.pages import huge_pages
from edgewise.runtime.pooling import POOLINGS, normalized
from edgewise.runtime.texts import batches, feed, prefix_of, read_texts
from edgewise.text.tokenizer import Pieces, Tokenizer

GRAPH = "encoder"

Floats = NDArray[np.float32]


class Encoder:
    """A model that reads whole texts: it embeds them, or says which labels they have.

    >>> with Encoder.open("minilm.edge") as encoder:                            # doctest: +SKIP
    ...     cats, dogs = encoder.embed(["A cat sleeps.", "A dog barks."])
    """

    def __init__(self, graph: Any, facts: EncoderFacts, tokenizer: Tokenizer, *, name: str = "") -> None:
        self.facts = facts
        self.tokenizer = tokenizer
        self._name = name
        self._graph: Any = graph
        self._check()

    @classmethod
    def open(cls, path: str | Path, *, threads: int | None = None, verify: bool = True) -> "Encoder":
        """The encoder of a bundle. `threads`: as many as physical cores, unless it is given.

        Raises BundleError for a bundle that was built for something else, or is not as it was built.
        """
        bundle = Bundle.open(path, verify=verify)
        facts = bundle.manifest.encoder
        tokenizer = Tokenizer.load(bundle.path)
        return cls(load_graph(bundle.path, bundle.manifest, threads=threads), facts, tokenizer, name=str(bundle.path))

    @property
    def dimensions(self) -> int:
        """Of a vector; of a classifier, its labels."""
        return int(self._output.shape[-1])

    def embed(self, texts: Sequence[str], *, prompt: str | None = None, truncate: bool = True) -> Floats:
        """A vector for each text, `[texts, dimensions]`, pooled and normalized as the model was trained.

        `prompt` names what is put before each text, where the model knows such ("query", "passage"); "" is for nothing.
        What is longer than the model's context loses its end, with a warning, or is a ContextOverflow if it is not to
        be truncated.
        """
        if self.facts.task != "feature-extraction":
            raise self._other()
        prefix = prefix_of(self.facts, prompt)
        pieces = read_texts(texts, self.tokenizer, self.facts, prefix=prefix, truncate=truncate)
        found = np.empty((len(pieces), self.dimensions), np.float32)
        for members, output, mask in self._run(pieces):
            vectors = POOLINGS[self.facts.pooling](output, mask) if self.facts.pooling else output
            found[members] = normalized(vectors) if self.facts.normalized else vectors
        return found

    def classify(self, texts: Sequence[str], *, truncate: bool = True) -> list[Classification]:
        """The labels of each text, with probabilities; of a model for tokens, the stretches of a text that have one."""
        pieces, scores = self._probabilities(texts, truncate)
        if self.facts.task == "text-classification":
            return [of_text(row, self.facts) for row in scores]
        found = zip(scores, pieces, texts, strict=True)
        return [of_tokens(rows, each, text, self.facts) for rows, each, text in found]

    def probabilities(self, texts: Sequence[str], *, truncate: bool = True) -> list[Floats]:
        """As `classify`, in arrays: `[labels]` for each text, or `[tokens, labels]` with those around it."""
        return self._probabilities(texts, truncate)[1]

    def _probabilities(self, texts: Sequence[str], truncate: bool) -> tuple[list[Pieces], list[Floats]]:
        if self.facts.task == "feature-extraction":
            raise self._other()
        pieces = read_texts(texts, self.tokenizer, self.facts, truncate=truncate)
        found: dict[int, Floats] = {}
        for members, output, mask in self._run(pieces):
            for number, row, count in zip(members, probabilities(output, self.facts), mask.sum(axis=1), strict=True):
                found[number] = row[:count] if row.ndim == 2 else row
        return pieces, [found[number] for number in range(len(pieces))]

    def close(self) -> None:
        """Give the memory of the model back."""
        self._graph = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run(self, pieces: Sequence[Pieces]) -> Iterator[tuple[list[int], Floats, NDArray[np.int64]]]:
        """What the graph gives for some texts at a time, by their numbers, and which tokens are theirs."""
        for members in batches([len(each.ids) for each in pieces]):
            inputs = feed([pieces[number].ids for number in members], self.facts)
            output = self._computed({name: inputs[name] for name in self.facts.inputs})
            if output.ndim == 3:  # a row for each token: of those that fill up it may be anything
                output = np.where(inputs["attention_mask"][:, :, None] == 1, output, np.float32(0))
            if not np.isfinite(output).all():
                raise GenerationError(f"{self._name}: what the graph gives is not finite (NaN or infinity)")
            yield members, output, inputs["attention_mask"]

    def _computed(self, inputs: dict[str, NDArray[np.int64]]) -> Floats:
        graph = self._opened
        try:
            (output,) = graph.run([self.facts.output], inputs)
        except Exception as error:
            raise GenerationError(f"{self._name}: the graph does not run: {first_line(error)}") from error
        found: Floats = output
        return found

    @property
    def _opened(self) -> Any:
        if self._graph is None:
            raise GenerationError(f"the encoder of {self._name} is closed")
        return self._graph

    @property
    def _output(self) -> Any:
        return next(value for value in self._opened.get_outputs() if value.name == self.facts.output)

    def _check(self) -> None:
        """Raises BundleError for a graph that is not what the manifest says."""
        inputs = {value.name for value in self._graph.get_inputs()}
        outputs = {value.name for value in self._graph.get_outputs()}
        if inputs != set(self.facts.inputs) or self.facts.output not in outputs:
            raise BundleError(
                f"{self._name}: the graph has the inputs {known(inputs)} and the outputs {known(outputs)}, and the "
                f"manifest says {known(self.facts.inputs)} and {self.facts.output}; build it again"
            )

    def _other(self) -> GenerationError:
        task = self.facts.task
        return GenerationError(f"{self._name} holds a model for {task}: {RUN_BY[task]} run it")


def load_graph(folder: Path, manifest: Manifest, *, threads: int | None = None) -> Any:
    """The graph of an encoder's bundle, ready to run. Raises BundleError where there is none."""
    if GRAPH not in manifest.graphs:
        raise BundleError(f"{folder}: there is no graph '{GRAPH}'; the bundle has {known(manifest.graphs)}")
    with huge_pages():
        return open_graph(
            folder / manifest.graphs[GRAPH],
            providers=manifest.providers,
            threads=manifest.threads if threads is None else threads,
            entries=manifest.session,
        )


def try_encoder(folder: Path, manifest: Manifest) -> Any:
    """The graph of an encoder's bundle, once it has read two tokens. Raises BundleError."""
    graph, facts = load_graph(folder, manifest), manifest.encoder
    inputs = feed([[facts.pad, facts.pad]], facts)
    try:
        graph.run([facts.output], {name: inputs[name] for name in facts.inputs})
    except Exception as error:
        raise BundleError(f"{folder}: the graph does not run: {first_line(error)}") from error
    return graph
