"""plugins, distill: how far a student's scores are from a teacher's; means over all positions, in nats.

With p the teacher's distribution and q the student's, both at a temperature T (Hinton et al., arXiv 1503.02531):

    forward_kl       T² sum p log(p / q)                                    covers all that the teacher says
    reverse_kl       T² sum q log(q / p)                                    seeks what it says most
    jensen_shannon   T² (b KL(p | m) + (1 - b) KL(q | m)),  m = b p + (1 - b) q      (GKD, arXiv 2306.13649)
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch.nn import functional

Tensor = torch.Tensor
Loss = Callable[[Tensor, Tensor, float], Tensor]

SHARE = 0.5  # b: of the teacher in the mixture


def forward_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Scores `[..., vocabulary]` of both."""
    q, p = _log(student, temperature), _log(teacher, temperature)
    return _mean(functional.kl_div(q, p, reduction="sum", log_target=True), student, temperature)


def reverse_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Scores `[..., vocabulary]` of both."""
    q, p = _log(student, temperature), _log(teacher, temperature)
    return _mean(functional.kl_div(p, q, reduction="sum", log_target=True), student, temperature)


def jensen_shannon(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Scores `[..., vocabulary]` of both."""
    q, p = _log(student, temperature), _log(teacher, temperature)
    m = torch.logaddexp(p + math.log(SHARE), q + math.log(1 - SHARE))
    first = functional.kl_div(m, p, reduction="sum", log_target=True)
    second = functional.kl_div(m, q, reduction="sum", log_target=True)
    return _mean(SHARE * first + (1 - SHARE) * second, student, temperature)


def cross_entropy(student: Tensor, tokens: Tensor) -> Tensor:
    """Scores `[sequences, length, vocabulary]` against the tokens that follow, of int64 `[sequences, length]`."""
    return functional.cross_entropy(student[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


LOSSES: Mapping[str, Loss] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jensen_shannon": jensen_shannon,
}


def _log(scores: Tensor, temperature: float) -> Tensor:
    return (scores / temperature).log_softmax(dim=-1)


def _mean(total: Tensor, scores: Tensor, temperature: float) -> Tensor:
    return total * (temperature**2 * scores.shape[-1] / scores.numel())
