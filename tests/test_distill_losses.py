"""tests: what students are held to: losses by their formulas, of all tokens or of the most likely and the rest."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from edgewise_plugins.distill.losses import LOSSES, Top, cross_entropy, distributions, relative_error, with_rest


def softmax(scores: np.ndarray, temperature: float) -> np.ndarray:
    powers = np.exp((scores - scores.max(axis=-1, keepdims=True)) / temperature)
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return float((p * np.log(p / q)).sum(axis=-1).mean())


FORMULAS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "forward_kl": kl,
    "reverse_kl": lambda p, q: kl(q, p),
    "jensen_shannon": lambda p, q: 0.5 * kl(p, (p + q) / 2) + 0.5 * kl(q, (p + q) / 2),
}


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_losses_are_their_formulas(name: str, temperature: float) -> None:
    student, teacher = np.random.default_rng(0).normal(size=(2, 3, 5, 11))
    q, p = distributions(torch.from_numpy(student), torch.from_numpy(teacher), temperature)
    expected = FORMULAS[name](softmax(teacher, temperature), softmax(student, temperature))
    assert float(LOSSES[name](q, p, temperature)) == pytest.approx(temperature**2 * expected)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_of_a_teacher_that_is_kept_the_rest_is_one_outcome(name: str) -> None:
    student, teacher = np.random.default_rng(0).normal(size=(2, 3, 5, 11))
    logs, tokens = torch.from_numpy(teacher).log_softmax(dim=-1).topk(4)
    q, p = distributions(torch.from_numpy(student), Top(tokens, with_rest(logs)), 1.0)

    def merged(scores: np.ndarray) -> np.ndarray:
        found = np.take_along_axis(softmax(scores, 1.0), tokens.numpy(), axis=-1)
        return np.concatenate([found, 1 - found.sum(axis=-1, keepdims=True)], axis=-1)

    expected = FORMULAS[name](merged(teacher), merged(student))
    assert float(LOSSES[name](q, p, 1.0)) == pytest.approx(expected)


def test_the_rest_of_a_distribution_that_has_none_is_a_number_with_a_derivative() -> None:
    logs = torch.tensor([[0.0, -40.0]], requires_grad=True)
    found = with_rest(logs)
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(found).all()
    assert logs.grad is not None
    assert torch.isfinite(logs.grad).all()


def test_cross_entropy_is_that_of_the_next_token() -> None:
    scores, following = np.random.default_rng(0).normal(size=(2, 4, 7)), np.array([[1, 2, 3, 4], [6, 0, 5, 1]])
    q = softmax(scores, 1.0)
    expected = -np.mean([np.log(q[s, i, following[s, i + 1]]) for s in range(2) for i in range(3)])
    assert float(cross_entropy(torch.from_numpy(scores), torch.from_numpy(following))) == pytest.approx(expected)


def test_a_relative_error_is_1_where_nothing_is_said() -> None:
    expected = torch.randn(3, 4)
    assert float(relative_error(torch.zeros(3, 4), expected)) == pytest.approx(1)
    assert float(relative_error(expected, expected)) == 0
