"""tests: the planner on plain numbers: time and memory by hand and by property, and what is advised."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.planner.memory import activations, on_accelerator, on_processor
from edgewise.planner.smaller import formats, largest_that_fits
from edgewise.planner.speed import Chunks, Rates, prompt
from edgewise.planner.weights import Weights
from edgewise.planner.work import Heads, Product, Table, Work
from edgewise.target import Efficiency, Hardware, Kernel, Number, Numerics

# A model small enough for arithmetic in the head: one layer, one product of 100 x 10, a head of 1000 x 10.
SMALL = Work(
    products=(
        Product("mlp.up", 100, 10, Weights("int4", block=10)),
        Product("lm_head", 1000, 10, Weights("int8", block=10), scored=True),
    ),
    attention=(Heads(heads=2, kv_heads=1, head_dim=5, window=None, cache="float32", width=4),),
    tables=(Table(1000, 10, Weights("int8", block=10), tied=True),),
    operators=7,
    elements=50,
    late_elements=20,
    live=40,
    constants=0,
    positions=100,
)


def _number(value: float) -> Number:
    return Number(value, "by hand", "estimated")


ROOFLINE = Hardware(
    bandwidth=_number(1000),
    compute={"int8": _number(5000), "float32": _number(2000)},
    efficiency=Efficiency(decode={"any": _number(0.5)}, prefill={"any": _number(0.8)}),
)

NUMERICS = Numerics(weights=("int4", "int8"), arithmetic={"int4": "int8"}, block_sizes=(128,))


def test_a_step_takes_what_bandwidth_or_arithmetic_ask_for_whichever_is_more() -> None:
    rates = Rates(ROOFLINE, NUMERICS, packed=False)
    up, head = SMALL.products
    assert up.stored == 100 * (5 + 4)
    assert head.stored == 1000 * (10 + 4)
    assert rates.product(up, 1) == 900 / 500  # 2,000 operations at 4,000 a second take less
    assert rates.product(up, 128) == 128 * 2000 / 4000
    step = rates.step(SMALL, tokens=128, held=72)
    assert step.products == 64 + 14_000 / 500  # the head computes one token, and waits for its weights
    assert step.attention == 4 * 2 * 5 * 128 * 200 / (2000 * 0.8)
    assert step.between == 4 * (50 * 128 + 20) / 500


def test_decoding_reads_all_keys_and_values_that_are_held() -> None:
    rates = Rates(ROOFLINE, NUMERICS, packed=False)
    shorter, longer = (rates.step(SMALL, tokens=1, held=held).attention for held in (99, 199))
    assert (shorter, longer) == (2 * 1 * 5 * 4 * 100 / 500, 2 * 1 * 5 * 4 * 200 / 500)


def test_a_window_bounds_what_attention_takes() -> None:
    heads = replace(SMALL.attention[0], window=32)
    assert heads.operations(1, 20) == 4 * 2 * 5 * 21
    assert heads.operations(1, 500) == 4 * 2 * 5 * 32


def test_measured_kernels_are_used_alone() -> None:
    kernel = Kernel(decode=_number(100), prefill=_number(1000))
    hardware = replace(ROOFLINE, kernels={"int4 block 16": kernel, "attention": kernel}, dispatch=_number(0.5))
    rates = Rates(hardware, NUMERICS)
    assert rates.product(SMALL.products[0], 1) == 2000 / 100  # blocks of 10: 16 is the nearest that was measured
    assert rates.product(SMALL.products[0], 5) == 2000 / 100 + 4 * 2000 / 1000
    assert rates.step(SMALL, tokens=1, held=9).attention == 4 * 2 * 5 * 10 / 100
    assert rates.step(SMALL, tokens=1, held=9).between == 4 * (50 + 20) / 500 + 7 * 0.5


def test_a_prompt_is_the_sum_of_its_chunks() -> None:
    rates = Rates(ROOFLINE, NUMERICS)
    chunks = [rates.step(SMALL, tokens=size, held=held).total for held, size in ((0, 128), (128, 128), (256, 44))]
    assert prompt(rates, SMALL, 300, Chunks(128)).total == pytest.approx(sum(chunks))


def test_long_chunks_go_through_the_second_graph_and_short_ones_do_not() -> None:
    rates = Rates(ROOFLINE, NUMERICS)
    second = replace(SMALL, products=())
    steps = rates.step(second, tokens=128, held=0).total + rates.step(SMALL, tokens=20, held=128).total
    assert prompt(rates, SMALL, 148, Chunks(128, second, 32)).total == pytest.approx(steps)


def test_graphs_of_fixed_lengths_compute_all_that_they_have_room_for() -> None:
    rates = Rates(ROOFLINE, NUMERICS)
    decode, second = replace(SMALL, width=1, capacity=512), replace(SMALL, width=128, capacity=512, products=())
    one = rates.step(second, tokens=128, held=0)
    assert one.attention == rates.attention(SMALL.attention[0], 128, 512)
    whole = prompt(rates, decode, 130, Chunks(128, second)).total
    assert whole == pytest.approx(2 * one.total + rates.step(decode, tokens=1, held=129).total)


@given(held=st.integers(0, 10_000), more=st.integers(1, 10_000))
def test_more_that_is_held_is_never_faster(held: int, more: int) -> None:
    rates = Rates(ROOFLINE, NUMERICS)
    assert rates.step(SMALL, tokens=1, held=held).total < rates.step(SMALL, tokens=1, held=held + more).total


@given(room=st.integers(1, 120_000), context=st.integers(1, 8192))
def test_what_is_said_to_fit_fits(room: int, context: int) -> None:
    def takes(work: Work, tokens: int) -> int:
        return on_accelerator(work, context=tokens, runtime=0, chunk=1).total

    found = largest_that_fits(SMALL, NUMERICS, context, takes, room)
    if found is not None:
        assert found.memory <= room
        assert found.context <= context


def test_eight_bits_are_advised_before_four_and_a_shorter_context_before_two() -> None:
    numerics = replace(NUMERICS, weights=("int2", "int4", "int8", "float32"))
    floats = replace(SMALL, products=(Product("mlp.up", 1000, 256, Weights("float32")),), tables=())

    def takes(work: Work, tokens: int) -> int:
        return on_accelerator(work, context=tokens, runtime=0, chunk=1).total

    eight, four, two = (floats.with_weights(lambda _, form=form: form) for form in formats(numerics))  # type: ignore[misc]
    rooms = [takes(eight, 4096), takes(four, 4096), takes(four, 1024), takes(two, 512)]
    found = [largest_that_fits(floats, numerics, 4096, takes, room) for room in (*rooms, takes(two, 512) - 1)]
    assert [each and (each.weights.dtype, each.context) for each in found] == [
        ("int8", 4096),
        ("int4", 4096),
        ("int4", 1024),
        ("int2", 512),
        None,
    ]
    shorter = largest_that_fits(four, numerics, 4096, takes, takes(four, 1024))
    assert shorter
    assert (shorter.weights.dtype, shorter.context) == ("int4", 1024)


def test_a_processor_holds_packed_weights_and_an_accelerator_stored_ones() -> None:
    packed = 100 * (5 + 8) + 1000 * (10 + 8)
    cpu = on_processor(SMALL, context=100, runtime=7, chunk=128)
    assert (cpu.weights, cpu.loading) == (packed + (100 + 1000) * 4, 10_000)  # scales stay mapped
    assert cpu.rows == 14_000  # every row of the table may have been looked up
    assert cpu.total == 7 + cpu.weights + max(cpu.loading, cpu.rows + cpu.cache + activations(SMALL, 128))
    npu = on_accelerator(SMALL, context=100, runtime=7, chunk=128)
    assert (npu.weights, npu.loading, npu.cache) == (900 + 14_000, 0, 4000)
