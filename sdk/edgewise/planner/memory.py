"""sdk, planner: what a runner holds in memory, part by part.

On a processor ONNX Runtime maps the file of weights, and rearranges each matrix for its kernels: it keeps the copy,
and lets go of the codes that it was made of. Scales and zero points stay mapped. While the largest matrix is being
rearranged it is there twice; later, that room is taken by keys, values and activations.
"""

from dataclasses import dataclass

from edgewise.planner.weights import Weights
from edgewise.planner.work import Product, Work

LIBRARIES = 80_000_000  # bytes: the interpreter, numpy, ONNX Runtime, tokenizers; measured on Linux
TOKENIZER = 18  # bytes for each of tokenizer.json: measured with vocabularies of 4,096 and 151,000
MAPPED = 1 << 16  # bytes that a system maps around what is read of a file, so for a row of a table
ARENA = 1.5  # what is allocated for each byte of activations: ONNX Runtime reuses blocks of other sizes


@dataclass(frozen=True)
class Memory:
    """Bytes that a runner takes: at its peak, with a full context."""

    runtime: int  # libraries, tokenizer
    weights: int
    loading: int  # more of them, while the largest is being rearranged
    cache: int
    activations: int
    rows: int = 0  # of tables, that were looked up

    @property
    def total(self) -> int:
        return self.runtime + self.weights + max(self.loading, self.rows + self.cache + self.activations)


def on_processor(work: Work, *, context: int, runtime: int, chunk: int, prompts: Work | None = None) -> Memory:
    """A runner whose weights ONNX Runtime's own kernels multiply with; `prompts` is its second graph.

    `chunk` is how many tokens of a prompt are computed at a time.
    """
    graphs = [work, *([prompts] if prompts else [])]
    products = [product for graph in graphs for product in graph.products]
    return Memory(
        runtime=runtime,
        weights=sum(map(_kept, products)) + _mapped(work, context),
        loading=max((p.weights.codes(p.rows, p.columns) for p in products if not _stays(p, work)), default=0),
        cache=work.cache(context),
        activations=max(activations(graph, chunk) for graph in graphs),
        rows=_looked_up(work, context),
    )


def on_accelerator(work: Work, *, context: int, runtime: int, chunk: int, beside: int = 0) -> Memory:
    """A runner whose weights are used as they are stored; `beside` are the bytes of a second graph's own."""
    return Memory(runtime, work.stored + beside, 0, work.cache(context), activations(work, chunk))


def activations(work: Work, chunk: int) -> int:
    """Bytes of what is computed for the tokens of a run, at most at once."""
    return int(ARENA * 4 * work.live * (work.width or chunk))


def _kept(product: Product) -> int:
    """The copy for the kernels, and what stays mapped."""
    return product.packed + product.count * _sides(product.weights, product.rows, product.columns)


def _stays(product: Product, work: Work) -> bool:
    """Whether a matrix stays mapped beside its copy: a table in floats that is also looked up."""
    return product.weights.block is None and product.role == "lm_head" and any(table.tied for table in work.tables)


def _sides(weights: Weights, rows: int, columns: int) -> int:
    return weights.sides(rows, columns) if weights.block else 0


def _mapped(work: Work, context: int) -> int:
    """A table in floats that the lm_head reads too; constants, rotary tables up to the context."""
    tied = sum(t.weights.stored(t.rows, t.columns) for t in work.tables if t.tied and t.weights.block is None)
    return tied + work.constants * min(context, work.positions) // work.positions


def _looked_up(work: Work, context: int) -> int:
    """What stays mapped of tables after so many tokens that are all different; in text most come again."""
    tables = [t for t in work.tables if not (t.tied and t.weights.block is None)]
    return sum(min(t.weights.stored(t.rows, t.columns), context * MAPPED) for t in tables)
