"""sdk, scaling: search over a tree of steps, of which policy, value and expansion are parts.

A node is a partial answer. The expansion draws steps that go on from it, the value scores them, and the policy says
which nodes are next. A beam is one policy; best-first, which goes back to an earlier node when what follows from it
disappoints, is another (tree of thoughts, Yao et al., arXiv 2305.10601).
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from edgewise.errors import OptionError
from edgewise.options import unknown
from edgewise.scaling.protocol import UNFINISHED, Candidate, Choice, Context, Draw, Flow, Scaler
from edgewise.scaling.verifier import Verifier, find_verifier, judged
from edgewise.search.stops import StopStrings


class StepEnd(StopStrings):
    """Ends a step, which others may follow."""

    name: ClassVar[str] = UNFINISHED


@dataclass(frozen=True, eq=False)
class Node:
    """A partial answer; the root has none."""

    candidate: Candidate | None = None
    depth: int = 0
    value: float = 0.0

    @property
    def whole(self) -> bool:
        return self.candidate is not None and self.candidate.whole


class Policy(ABC):
    """Which nodes are expanded next."""

    @abstractmethod
    def choose(self, leaves: Sequence[Node], width: int) -> list[Node]:
        """Some of the leaves that are not whole, at most `width`; none ends the search."""


class Beam(Policy):
    """The best of each depth; what is not among them, whole answers included, is left behind."""

    def choose(self, leaves: Sequence[Node], width: int) -> list[Node]:
        deepest = max(leaf.depth for leaf in leaves)
        best = sorted((leaf for leaf in leaves if leaf.depth == deepest), key=lambda leaf: -leaf.value)[:width]
        return [leaf for leaf in best if not leaf.whole]


class BestFirst(Policy):
    """The best of all leaves, wherever they are: it backtracks. Over once as many whole answers as are expanded at a
    time are better than any leaf."""

    def choose(self, leaves: Sequence[Node], width: int) -> list[Node]:
        best = sorted(leaves, key=lambda leaf: -leaf.value)[:width]
        return [leaf for leaf in best if not leaf.whole]


POLICIES: dict[str, type[Policy]] = {"beam": Beam, "best-first": BestFirst}


@dataclass(frozen=True, kw_only=True)
class Steps:
    """The expansion: so many different steps that may follow, each up to the text between steps."""

    children: int = 4
    separator: str = "\n"

    def __post_init__(self) -> None:
        if self.children < 1 or not self.separator:
            raise OptionError("a step has 1 child or more, and the text between steps is not empty")

    def of(self, node: Node, options: Mapping[str, Any]) -> Generator[Draw, tuple[Candidate, ...], list[Candidate]]:
        """What may follow a node; nothing once the budget is spent."""
        stop = [StepEnd((self.separator,))]
        drawn = yield Draw(count=self.children, after=node.candidate, options={**options, "stop": stop})
        return list({each.tokens: each for each in drawn}.values())


@dataclass(frozen=True, kw_only=True)
class TreeSearch(Scaler):
    """Grows a tree of steps, and takes the whole answer with the best value.

    Samples of the budget are whole answers; a bound of tokens or seconds says what the steps may take.
    """

    name: ClassVar[str] = "tree"
    policy: str | Policy = "beam"
    value: str | Mapping[str, Any] | Verifier = "logprob"
    expansion: Steps = Steps()
    width: int = 4  # nodes that are expanded before the policy looks again

    def __post_init__(self) -> None:
        find_verifier(self.value)
        if isinstance(self.policy, str) and self.policy not in POLICIES:
            raise OptionError(unknown("policy", self.policy, POLICIES))
        if self.width < 1:
            raise OptionError(f"width is {self.width}; it must be 1 or more")

    def flow(self, context: Context) -> Flow:
        policy = POLICIES[self.policy]() if isinstance(self.policy, str) else self.policy
        leaves = [Node()]
        grown: list[Node] = []
        spent = False
        while not spent and (chosen := policy.choose(leaves, self.width)):
            for node in chosen:
                children = yield from self._children(context, node)
                spent = not children
                if spent:
                    break
                leaves.remove(node)
                leaves += children
                grown += children
        return _choice(grown)

    def _children(self, context: Context, node: Node) -> Generator[Draw, tuple[Candidate, ...], list[Node]]:
        value = find_verifier(self.value)
        drawn = yield from self.expansion.of(node, value.options)
        verdicts = yield from judged(value, context, tuple(drawn))
        scored = (replace(each, score=v.score) for each, v in zip(drawn, verdicts, strict=True))
        return [Node(each, node.depth + 1, each.score) for each in scored]


def _choice(grown: Sequence[Node]) -> Choice:
    whole = [node for node in grown if node.whole]
    best = max(whole or grown, key=lambda node: node.value)
    candidates = tuple(node.candidate for node in grown if node.candidate)
    what = f"the best of {len(whole)} whole answers" if whole else "none is whole"
    assert best.candidate
    return Choice(best.candidate, candidates, f"value {best.value:.4g}, {what}, from {len(grown)} steps")
