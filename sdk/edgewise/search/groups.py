"""sdk, search: diverse beam search (arXiv 1610.02424): groups of beams that avoid each other's tokens."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgewise.errors import OptionError
from edgewise.search.beam import Beam, best, normalized
from edgewise.search.hypotheses import place
from edgewise.search.protocol import Context, Extend, Flow, Request


@dataclass(frozen=True, kw_only=True)
class BeamGroups(Beam):
    """Beam search in groups that make each other's tokens less probable: several good and different sequences.

    At each step a group takes `diversity_penalty` from the log-probability of a token for each time that the groups
    before it have just chosen it (Hamming diversity). Each group of `num_beams` / `num_beam_groups` is a beam search
    of its own, and stops alone; the best sequences of all are given.
    """

    name: ClassVar[str] = "beam_groups"
    num_beam_groups: int = 2
    diversity_penalty: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_beam_groups < 1:
            raise OptionError(f"num_beam_groups is {self.num_beam_groups}; it must be 1 or above")
        if self.num_beams % self.num_beam_groups:
            raise OptionError(f"num_beams is {self.num_beams}; it must be a multiple of {self.num_beam_groups} groups")
        if not 0 <= self.diversity_penalty < np.inf:
            raise OptionError(f"diversity_penalty is {self.diversity_penalty}; it must be 0 (none) or above")

    def flow(self, context: Context) -> Flow:
        width = self.num_beams // self.num_beam_groups
        fronts = [self.front(width, context) for _ in range(self.num_beam_groups)]
        request = Request(extend=(Extend(0, context.prompt, parent=None),))
        while request.extend:
            reply = yield request
            log_probs = normalized(request, reply.logits)
            discount = np.zeros(len(reply.logits[0][-1]), np.float32)
            for front in fronts:
                if front.open:
                    chosen = front.step(log_probs, discount)
                    np.add.at(discount, chosen, np.float32(self.diversity_penalty))
            request = place([each for front in fronts for each in front.open], set(log_probs))
        return best(fronts, self.num_return)
