"""plugins, distill: how far what a student says is from what its teacher says; means over all positions, in nats.

With p the teacher's distribution and q the student's, both at a temperature T (Hinton et al., arXiv 1503.02531):

    forward_kl       T² sum p log(p / q)                                    covers all that the teacher says
    reverse_kl       T² sum q log(q / p)                                    seeks what it says most
    jensen_shannon   T² (b KL(p | m) + (1 - b) KL(q | m)),  m = b p + (1 - b) q      (GKD, arXiv 2306.13649)

Of a teacher whose most likely tokens alone are kept, the rest are one outcome, and so they are of the student.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch.nn import functional

Tensor = torch.Tensor
Loss = Callable[[Tensor, Tensor, float], Tensor]

SHARE = 0.5  # b: of the teacher in the mixture
LEAST = 1e-7  # of the probability of the rest: less is rounding


@dataclass(frozen=True)
class Top:
    """The most likely tokens of each position, at a temperature.

    tokens: int64 `[..., k]`. logs: `[..., k + 1]`, the logarithms of their probabilities and that of all the others.
    """

    tokens: Tensor
    logs: Tensor


def distributions(student: Tensor, teacher: Tensor | Top, temperature: float) -> tuple[Tensor, Tensor]:
    """Logarithms of the probabilities of both, of the same outcomes; from scores `[..., vocabulary]`."""
    q = (student / temperature).log_softmax(dim=-1)
    if not isinstance(teacher, Top):
        return q, (teacher / temperature).log_softmax(dim=-1)
    return with_rest(q.gather(-1, teacher.tokens)), teacher.logs


def with_rest(logs: Tensor) -> Tensor:
    """Logarithms of some probabilities, `[..., k]`, and after them that of what is left to 1."""
    rest = (1 - logs.exp().sum(dim=-1, keepdim=True)).clamp(min=LEAST).log()
    return torch.cat([logs, rest], dim=-1)


def forward_kl(q: Tensor, p: Tensor, temperature: float) -> Tensor:
    """Logarithms `[..., outcomes]` of the student's and the teacher's probabilities."""
    return _mean(functional.kl_div(q, p, reduction="sum", log_target=True), q, temperature)


def reverse_kl(q: Tensor, p: Tensor, temperature: float) -> Tensor:
    """Logarithms `[..., outcomes]` of the student's and the teacher's probabilities."""
    return _mean(functional.kl_div(p, q, reduction="sum", log_target=True), q, temperature)


def jensen_shannon(q: Tensor, p: Tensor, temperature: float) -> Tensor:
    """Logarithms `[..., outcomes]` of the student's and the teacher's probabilities."""
    m = torch.logaddexp(p + math.log(SHARE), q + math.log(1 - SHARE))
    first = functional.kl_div(m, p, reduction="sum", log_target=True)
    second = functional.kl_div(m, q, reduction="sum", log_target=True)
    return _mean(SHARE * first + (1 - SHARE) * second, q, temperature)


def cross_entropy(student: Tensor, tokens: Tensor) -> Tensor:
    """Scores `[sequences, length, vocabulary]` against the tokens that follow, of int64 `[sequences, length]`."""
    return functional.cross_entropy(student[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def relative_error(found: Tensor, expected: Tensor) -> Tensor:
    """The mean square of the difference, of that of what is expected."""
    return (found - expected).square().mean() / expected.square().mean()


LOSSES: Mapping[str, Loss] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jensen_shannon": jensen_shannon,
}


def _mean(total: Tensor, logs: Tensor, temperature: float) -> Tensor:
    return total * (temperature**2 * logs.shape[-1] / logs.numel())
