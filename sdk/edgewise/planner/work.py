"""sdk, planner: what a graph computes for a token, counted: products, attention, all else. Plain numbers."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from edgewise.planner.weights import Weights


@dataclass(frozen=True)
class Product:
    """A product with a constant matrix `[rows, columns]`, or with some of several such, as experts are."""

    role: str
    rows: int
    columns: int
    weights: Weights
    count: int = 1  # matrices
    active: float = 1  # of them, that a token is multiplied with, on average
    scored: bool = False  # computed only for tokens whose scores are asked for
    zeros: str | None = None  # of the matrix: "2:4"

    @property
    def operations(self) -> int:
        """For each token; a multiply-add is two."""
        return int(2 * self.rows * self.columns * self.active)

    @property
    def padded(self) -> int:
        """Operations of kernels that fill up the last block of a row."""
        return int(2 * self.rows * self.weights.padded(self.columns) * self.active)

    @property
    def stored(self) -> int:
        return self.count * self.weights.stored(self.rows, self.columns)

    @property
    def packed(self) -> int:
        return self.count * self.weights.packed(self.rows, self.columns)

    def read(self, tokens: int, *, packed: bool) -> int:
        """Bytes of weights that a run over so many tokens reads: of few tokens, those of the active experts."""
        whole = self.packed if packed else self.stored
        return int(whole * min(self.count, tokens * self.active) / self.count)


@dataclass(frozen=True)
class Table:
    """An embedding: of its rows each token reads one. `tied`: the lm_head is the same matrix."""

    rows: int
    columns: int
    weights: Weights
    tied: bool = False

    @property
    def stored(self) -> int:
        """Bytes on the disk, beside those of the lm_head."""
        return 0 if self.tied else self.weights.stored(self.rows, self.columns)


@dataclass(frozen=True)
class Heads:
    """The attention of a layer, whose operations grow with the tokens that it looks back on."""

    heads: int
    kv_heads: int
    head_dim: int
    window: int | None = None
    cache: str = "float32"  # how keys and values are kept
    width: int = 4  # bytes of one number there
    ring: int = 0  # positions that are kept, the last ones; 0: all

    def operations(self, tokens: int, held: int) -> int:
        """Of a run over `tokens` tokens that follow `held`: every token is held against all, as kernels do."""
        return 4 * self.heads * self.head_dim * tokens * self.seen(tokens, held)

    def bytes(self, tokens: int) -> int:
        """Keys and values of so many tokens."""
        return 2 * self.kv_heads * self.head_dim * self.width * tokens

    def seen(self, tokens: int, held: int) -> int:
        """Keys that tokens are held against which follow `held`."""
        if self.ring:
            return tokens + self.kept(held)
        return tokens + held if self.window is None else min(tokens + held, self.window)

    def kept(self, tokens: int) -> int:
        """Positions of so many tokens that stay."""
        return min(tokens, self.ring) if self.ring else tokens


@dataclass(frozen=True)
class Work:
    """A graph, as far as its memory and its speed go."""

    products: tuple[Product, ...]
    attention: tuple[Heads, ...]
    tables: tuple[Table, ...]
    operators: int  # where all that play one role in a layer are one
    elements: int  # numbers that all other operators read and write for each token
    late_elements: int  # and for each whose scores are asked for, beside those
    live: int  # numbers that are alive at once for each token, at most
    constants: int  # bytes of all other constants: rotary tables and norms
    positions: int  # that the rotary tables have
    capacity: int = 0  # positions that attention always computes, in graphs of fixed lengths
    width: int = 0  # tokens that a run always computes, in graphs of fixed lengths

    @property
    def parameters(self) -> int:
        matrices = sum(p.count * p.rows * p.columns for p in self.products)
        return matrices + sum(t.rows * t.columns for t in self.tables if not t.tied)

    @property
    def operations(self) -> int:
        """Of all products, for a token whose scores are asked for."""
        return sum(product.operations for product in self.products)

    @property
    def stored(self) -> int:
        """Bytes on the disk."""
        return sum(p.stored for p in self.products) + sum(t.stored for t in self.tables) + self.constants

    @property
    def active_parameters(self) -> int:
        """Of the matrices that a token is multiplied with."""
        return int(sum(p.rows * p.columns * p.active for p in self.products))

    def active(self, held: int) -> int:
        """Bytes that a token reads which follows `held`: matrices as they are stored, of experts those that it is given
        to, a row of each table, keys and values.
        """
        matrices = sum(product.read(1, packed=False) for product in self.products)
        rows = sum(table.weights.stored(1, table.columns) for table in self.tables)
        return matrices + rows + sum(heads.bytes(heads.seen(1, held)) for heads in self.attention)

    def operations_after(self, held: int) -> int:
        """Of products and attention, for a token which follows `held`, whose scores are asked for."""
        return self.operations + sum(heads.operations(1, held) for heads in self.attention)

    def cache(self, tokens: int) -> int:
        """Bytes of keys and values of so many tokens."""
        return sum(heads.bytes(heads.kept(tokens)) for heads in self.attention)

    def halved(self) -> "Work":
        """What a compiler makes of it which has floats in 16 bits, and a tied table once more for its lookups."""
        changed = self.with_weights(_halved)
        tables = tuple(replace(table, tied=False) for table in changed.tables)
        return replace(changed, tables=tables, constants=self.constants // 2)

    def with_weights(self, weights: Callable[[Weights], Weights]) -> "Work":
        """The same model with all of its matrices in other formats."""
        return replace(
            self,
            products=tuple(replace(p, weights=weights(p.weights)) for p in self.products),
            tables=tuple(replace(t, weights=weights(t.weights)) for t in self.tables),
        )


def _halved(weights: Weights) -> Weights:
    return replace(weights, scale=2) if weights.block is not None else replace(weights, dtype="float16")
