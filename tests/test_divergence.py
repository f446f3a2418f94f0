"""tests: divergences beside their definition, the figures made of them, gates, records that a kill cuts off."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from edgewise.errors import GenerationError, OptionError
from edgewise.quality import divergence
from edgewise.quality.divergence import Divergences, Likelihoods, aligned, divergences, likelihoods
from edgewise.quality.finished import Finished
from edgewise.quality.gate import Gate
from edgewise.quality.greedy import same_tokens
from edgewise.quality.report import Distance, distance, quality


def obvious(reference: np.ndarray, logits: np.ndarray, targets: np.ndarray) -> Divergences:
    """The definitions, a position and a token at a time."""
    rows = []
    for a, b, target in zip(reference.astype(np.float64), logits.astype(np.float64), targets, strict=True):
        p, q = np.exp(a - a.max()), np.exp(b - b.max())
        p, q = p / p.sum(), q / q.sum()
        kld = sum(x * np.log(x / y) for x, y in zip(p, q, strict=True))
        overlap = sum(min(x, y) for x, y in zip(p, q, strict=True))
        rows.append((-np.log(q[target]), -np.log(p[target]), kld, float(p.argmax() == q.argmax()), overlap))
    return Divergences(*np.array(rows).T)


def random_logits(positions: int, vocabulary: int, scale: float = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(positions)
    a, b = (scale * rng.standard_normal((2, positions, vocabulary))).astype(np.float32)
    return a, b, rng.integers(0, vocabulary, positions)


def test_divergences_are_those_of_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divergence, "BLOCK", 7 * 40)  # 7 positions at a time
    a, b, targets = random_logits(50, 40)
    found, expected = divergences(a, b, targets), obvious(a, b, targets)
    for name in ("nll", "reference_nll", "kld", "same_top", "overlap"):
        assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-12, err_msg=name)
    assert_allclose(likelihoods(b, targets).nll, expected.nll, rtol=1e-12)


def test_a_model_does_not_diverge_from_itself_nor_by_a_constant() -> None:
    a, _, targets = random_logits(20, 1000)
    shifted = (a.astype(np.float64) + 17).astype(np.float32)
    assert divergences(a, a, targets).kld.max() == 0
    assert divergences(a, shifted, targets).kld.max() < 1e-10


@pytest.mark.parametrize("scale", [1e-3, 1, 1e4])
def test_a_divergence_is_never_negative(scale: float) -> None:
    a, b, targets = random_logits(100, 64, scale)
    near = a * np.float32(1 + 1e-7)
    for other in (b, near):
        found = divergences(a, other, targets)
        assert np.isfinite(found.kld).all()
        assert found.kld.min() >= 0


def test_scores_that_are_not_finite_are_refused() -> None:
    a, b, targets = random_logits(3, 8)
    b[1, 2] = np.nan
    with pytest.raises(GenerationError, match="not finite"):
        divergences(a, b, targets)


@settings(deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1), st.lists(st.integers(1, 12), min_size=1), st.integers(1, 9))
def test_streams_that_are_chunked_differently_are_aligned(
    first: Sequence[int], second: Sequence[int], length: int
) -> None:
    rows = np.arange(4 * length)[:, None]
    seen, expected = [], 0
    for position, (a, b) in aligned([chunked(rows, first), chunked(rows, second)], length):
        assert position == expected
        assert_allclose(a, b)
        expected = (position + len(a)) % length
        assert position + len(a) <= length
        seen.append(a)
    assert_allclose(np.concatenate(seen), rows)


def chunked(rows: np.ndarray, sizes: Sequence[int]) -> Iterator[np.ndarray]:
    start, number = 0, 0
    while start < len(rows):
        size = sizes[number % len(sizes)]
        yield rows[start : start + size]
        start, number = start + size, number + 1


def test_the_figures_are_those_of_the_positions() -> None:
    a, b, targets = random_logits(400, 50)
    found = divergences(a, b, targets)
    figures = distance(found)
    assert_allclose(figures.mean_kld, sum(found.kld) / 400)
    assert_allclose(figures.mean_kld_error, np.sqrt(np.var(found.kld, ddof=1) / 400))
    assert sum(found.kld > figures.p99_kld) == 4
    assert figures.max_kld == max(found.kld)
    assert figures.top1 == np.mean(a.argmax(1) == b.argmax(1))
    assert_allclose(figures.overlap, np.mean(found.overlap))
    whole = quality(found, length=11, text_bytes=1000)
    assert_allclose(whole.perplexity, np.prod(np.exp(found.nll) ** (1 / 400)))
    assert_allclose(whole.bits_per_byte, sum(np.log2(np.exp(found.nll))) / 1000)
    assert_allclose(whole.perplexity / figures.reference_perplexity, figures.perplexity_ratio)
    difference = found.nll - found.reference_nll
    assert_allclose(figures.perplexity_ratio_error / figures.perplexity_ratio, np.std(difference, ddof=1) / 20)


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"max_mean_kld": 0.04}, "mean KL divergence is 0.05, and 0.04 is the most that the gate allows"),
        ({"max_p99_kld": 0.1}, "p99 of the KL divergence is 0.3, and 0.1 is the most that the gate allows"),
        ({"min_top1": 0.95}, "top-1 agreement is 0.9, and 0.95 is the least that the gate allows"),
        ({"max_perplexity_ratio": 1.01}, "perplexity ratio is 1.02, and 1.01 is the most that the gate allows"),
        ({"max_mean_kld": 0.05, "max_p99_kld": 0.3, "min_top1": 0.9, "max_perplexity_ratio": 1.02}, None),
    ],
)
def test_a_gate_says_what_is_not_good_enough(limits: dict[str, float], says: str | None) -> None:
    found = Distance(
        mean_kld=0.05,
        mean_kld_error=0.001,
        p99_kld=0.3,
        max_kld=2.0,
        top1=0.9,
        overlap=0.9,
        reference_perplexity=10.0,
        perplexity_ratio=1.02,
        perplexity_ratio_error=0.01,
    )
    assert Gate(**limits).failures(found) == ([] if says is None else [says])


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({}, "it sets no limit"),
        ({"max_mean_kld": -0.1}, "max_mean_kld is -0.1"),
        ({"max_mean_kld": float("nan")}, "max_mean_kld is nan"),
        ({"max_perplexity_ratio": float("inf")}, "max_perplexity_ratio is inf"),
        ({"min_top1": 90.0}, "min_top1 is 90; it is a share"),
    ],
)
def test_a_gate_that_means_nothing_is_refused(limits: dict[str, float], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        Gate(**limits)


def test_what_a_kill_left_half_written_is_measured_again(tmp_path: Path) -> None:
    rows = [Divergences(*np.random.default_rng(i).random((5, 6))) for i in range(3)]
    finished = Finished(tmp_path, Divergences, 6)
    for row in rows:
        finished.add(row)
    content = finished.path.read_bytes()
    for cut, left in ((content[:-1], 2), (content[: len(content) // 3 + 1], 1), (b"x" + content[1:], 0), (content, 3)):
        finished.path.write_bytes(cut)
        found = Finished(tmp_path, Divergences, 6).found
        assert len(found) == left
        for read, row in zip(found, rows, strict=False):
            assert np.array_equal(read.nll, row.nll)
            assert np.array_equal(read.same_top, row.same_top)


def test_records_of_another_kind_are_not_taken(tmp_path: Path) -> None:
    Finished(tmp_path, Likelihoods, 24).add(Likelihoods(np.zeros(24)))
    assert len(Finished(tmp_path, Likelihoods, 24).found) == 1
    assert Finished(tmp_path, Likelihoods, 6).found == []


def test_texts_that_both_end_do_not_differ_after_that() -> None:
    ours, theirs = np.array([5, 6, 0, 8]), np.array([5, 6, 0, 9])
    assert same_tokens(ours, theirs, eos=(0,)) == 4
    assert same_tokens(ours, theirs, eos=(9,)) == 3
    assert same_tokens(np.array([5, 0]), np.array([6, 0]), eos=(0,)) == 0
