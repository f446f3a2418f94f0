"""tests: the knapsack of mixed precision, against every combination."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from edgewise_plugins.knapsack import Chosen, Option, cheapest, exchange, fill, frontier


def items(seed: int, count: int = 6) -> dict[str, list[Option]]:
    rng = np.random.default_rng(seed)
    found = {}
    for name in range(count):
        size, loss = int(rng.integers(10, 400)), float(rng.exponential())
        losses = (loss, loss / rng.uniform(3, 40), loss / rng.uniform(300, 4000))
        found[str(name)] = [Option(b, b * size, b / 4, at) for b, at in zip((2, 4, 8), losses, strict=True)]
    return found


def size(chosen: Chosen) -> int:
    return sum(option.bytes for option in chosen.values())


def loss(chosen: Chosen) -> float:
    return sum(option.loss for option in chosen.values())


@pytest.mark.parametrize("seed", range(20))
def test_the_mix_that_fits_is_nearly_the_best_of_all(seed: int) -> None:
    options = items(seed)
    bound = int(1.7 * size(cheapest(options)))
    chosen = fill(options, lambda mix: size(mix) <= bound, lambda _: False)
    every = (dict(zip(options, mix, strict=True)) for mix in itertools.product(*options.values()))
    best = min((mix for mix in every if size(mix) <= bound), key=loss)
    assert size(chosen) <= bound
    assert loss(best) <= loss(chosen)
    # what it misses is less than one step: the steps themselves are taken in the best order
    assert loss(chosen) - loss(best) <= max(option[0].loss - option[1].loss for option in options.values())
    assert loss(chosen) < 0.5 * loss(cheapest(options))


@pytest.mark.parametrize("seed", range(20))
def test_a_bound_of_time_spends_time_where_it_buys_most(seed: int) -> None:
    """8 bits take three times as long as 4, which take hardly longer than 2: another order than that of bytes."""
    rng = np.random.default_rng(seed)
    options = {
        name: [replace(option, ms=size * ms) for option, ms in zip(each, (30, 31, 108), strict=True)]
        for (name, each), size in zip(items(seed).items(), rng.uniform(1, 9, 6), strict=True)
    }

    def ms(mix: Chosen) -> float:
        return sum(option.ms for option in mix.values())

    bound = 1.5 * ms(cheapest(options))
    chosen = fill(options, lambda mix: ms(mix) <= bound, lambda _: False, lambda option: option.ms)
    every = (dict(zip(options, mix, strict=True)) for mix in itertools.product(*options.values()))
    best = min((mix for mix in every if ms(mix) <= bound), key=loss)
    assert ms(chosen) <= bound
    assert loss(chosen) - loss(best) <= max(option[1].loss - option[2].loss for option in options.values())


@pytest.mark.parametrize("seed", range(20))
def test_exchanges_leave_no_two_items_that_could_do_better(seed: int) -> None:
    options = items(seed)
    bound = int(1.7 * size(cheapest(options)))

    def fits(mix: Chosen) -> bool:
        return size(mix) <= bound

    start = fill(options, fits, lambda _: False)
    chosen = exchange(options, start, fits)
    assert fits(chosen)
    assert loss(chosen) <= loss(start)
    for (a, first), (b, second) in itertools.combinations(options.items(), 2):
        for one, other in itertools.product(first, second):
            mix = {**chosen, a: one, b: other}
            assert not fits(mix) or loss(mix) >= loss(chosen)


def test_exchanges_use_what_the_best_step_left() -> None:
    options = {
        "steep": [Option(2, 10, 1, 10.0), Option(4, 60, 1, 4.0)],
        "large": [Option(2, 10, 1, 10.0), Option(4, 80, 1, 3.0)],
    }

    def fits(mix: Chosen) -> bool:
        return size(mix) <= 95

    start = fill(options, fits, lambda _: False)
    assert (size(start), loss(start)) == (70, 14)
    chosen = exchange(options, start, fits)
    assert (size(chosen), loss(chosen)) == (90, 13)


@pytest.mark.parametrize("seed", range(20))
def test_the_smallest_mix_that_is_good_enough_is_nearly_the_smallest_of_all(seed: int) -> None:
    options = items(seed)
    target = 0.1 * loss(cheapest(options))
    chosen = fill(options, lambda _: True, lambda mix: loss(mix) <= target)
    every = (dict(zip(options, mix, strict=True)) for mix in itertools.product(*options.values()))
    best = min((mix for mix in every if loss(mix) <= target), key=size)
    assert loss(chosen) <= target
    assert size(best) <= size(chosen) <= size(best) + max(option[2].bytes for option in options.values())


def test_options_that_cost_more_for_nothing_are_not_on_the_frontier() -> None:
    two, four, eight = Option(2, 20, 1, 1.0), Option(4, 40, 1, 0.9), Option(8, 80, 1, 0.0)
    assert frontier([eight, two, four]) == [two, eight]
    assert frontier([two, Option(4, 40, 1, 1.0)]) == [two]
