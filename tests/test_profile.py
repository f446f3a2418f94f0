"""tests: profiles: what one says, what it inherits, and that what is wrong is a line with the file and the key."""

from pathlib import Path

import pytest

from boards import BOARD, CHILD, PROVIDER, profiles, read, refused
from edgewise.errors import TargetError
from edgewise.profile import load_target
from edgewise.target import Number


def test_a_profile_says_everything_that_a_target_is() -> None:
    target = read(BOARD)
    assert (target.name, target.context, target.providers[0].options) == ("board", 1024, {"intra_op_num_threads": "2"})
    assert target.hardware.memory == Number(1e9, "its data sheet", "published")
    assert [step.record() for step in target.recipe] == [{"pass": "quantize", "bits": 8}]
    assert [step.name for step in target.calibrated] == ["accuracy-level"]
    assert [step.name for step in target.lowering] == ["lower-ort"]
    assert target.session == {"session.intra_op.allow_spinning": "0"}
    assert target.needs.static
    assert target.needs.static.prefill == 64
    assert target.needs.types == {"MatMul": ("float16",)}


def test_an_efficiency_is_that_of_the_weights_or_that_of_any() -> None:
    efficiency = read(BOARD).hardware.efficiency
    assert [efficiency.of("decode", kind) for kind in ("int4", "int8")] == [
        Number(0.6, "a run", "measured"),
        Number(0.5, "a guess", "estimated"),
    ]
    assert efficiency.of("prefill", "int4") is None


def test_the_numbers_of_the_hardware_are_listed_by_their_keys() -> None:
    numbers = dict(read(BOARD).hardware.numbers())
    assert list(numbers) == [
        "memory",
        "efficiency.decode.any",
        "efficiency.decode.int4",
        "kernels.int4 block 32.decode",
        "kernels.int4 block 32.prefill",
    ]
    assert numbers["memory"].value == 1e9


@pytest.mark.parametrize(
    ("line", "instead", "message"),
    [
        ('name = "board"', "", "name must be given"),
        ('name = "board"', 'name = "My Board"', "name: 'My Board' is not lower-case letters, digits and hyphens"),
        ('name = "board"', 'name = "board"\naliases = ["a b"]', "'a b' is not lower-case"),
        ('description = "a board with one gigabyte"', 'description = " "', "description: it is to be one line"),
        ("context = 1024", 'context = "long"', "context: expected a whole number, got 'long'"),
        ("context = 1024", "context = 0", "context: 0 is not 1 or more"),
        ("context = 1024", "threads = 0", "threads: 0 is not 1 or more"),
        ("context = 1024", "contxt = 1024", "no option is named 'contxt'; did you mean 'context'? known: aliases,"),
        ("context = 1024", 'proof = "sure"', "proof: 'sure' is not one of run, emulated, specified"),
        (PROVIDER, "providers = []", "providers: none is given"),
        ("XnnpackExecutionProvider", "XNN", "no provider is named 'XNN'; known: CPUExecutionProvider, CUDA"),
        ("intra_op_num_threads", "arena", "XnnpackExecutionProvider: a bundle may not set its option 'arena'; it may"),
        ('["linux"]', '["lnux"]', "device: os[0]: 'lnux' is not one of linux, windows, macos, android, ios, web"),
        ('os = ["linux"]', 'form = "toy"', "form: 'toy' is not one of server, desktop, laptop, phone, board"),
        ('{ value = 1e9, source = "its data sheet", kind = "published" }', "1e9", "with kind, source, value, got 1000"),
        ('source = "its data sheet", ', "", "hardware: memory: source must be given"),
        ('"its data sheet"', '" "', "hardware: memory: source: it is empty"),
        ('kind = "published"', 'kind = "guessed"', "memory: kind: 'guessed' is not one of measured, published, est"),
        ('value = 1e9, source = "its', 'value = 0, source = "its', "memory: value: 0.0 is not a number above 0"),
        ('value = 1e9, source = "its', 'value = -1, source = "its', "memory: value: -1.0 is not a number above 0"),
        ('value = 1e9, source = "its', 'value = nan, source = "its', "memory: value: nan is not a number above 0"),
        ('value = 1e9, source = "its', f'value = 1{"0" * 400}, source = "its', "a number of 401 digits is too large"),
        ("value = 0.5", "value = 1.5", "efficiency: decode.any: value: 1.5 is not a share"),
        ("int4 = { value = 0.6", "int5 = { value = 0.6", "decode: 'int5' is not one of float32,"),
        ('"int4 block 32"', '"int4 blocks"', "kernels: no kind of product is named 'int4 blocks'; known: attention"),
        ("[32, 128]", "[33]", "numerics: block_sizes: 33 is not one of 0, 16, 32, 64,"),
        ('int4 = "int8" }', 'int4 = "int9" }', "numerics: arithmetic.int4: 'int9' is not one of float32"),
        ("opset = 21", "opset = 99", "needs: opset: 99 is not from 7 to 26"),
        ("prefill = 64", "prefill = 0", "needs: static: prefill: 0 is not 1 or more"),
        (":GroupQueryAttention", ":GroupQueryAtention", "did you mean com.microsoft:GroupQueryAttention"),
        ('["com.microsoft:GroupQueryAttention"]', '["?"]', "operator is named '?'; one is com.microsoft:MatMulNBits"),
        ("MatMul = [", "MatMull = [", "needs: types: no operator is named 'MatMull'; did you mean MatMul,"),
        ('pass = "quantize"', "", "recipe: step 1 must name its pass"),
        ("session.intra_op.allow_spinning", "session.spin", "session: no session entry is named 'session.spin'"),
        ("[session]", "[session", "(at line"),
    ],
)
def test_a_profile_that_is_wrong_is_one_line_that_says_where(line: str, instead: str, message: str) -> None:
    assert line in BOARD
    said = refused(BOARD.replace(line, instead))
    assert said.startswith("mine.toml: ")
    assert message in said


def test_operators_and_entries_of_others_are_theirs_to_know() -> None:
    text = BOARD.replace("com.microsoft:Group", "com.nobody:Group").replace("session.intra", "ep.nobody.intra")
    assert read(text).needs.denied == ("com.nobody:GroupQueryAttention",)


def test_a_library_may_bring_a_provider_that_onnx_runtime_does_not_have() -> None:
    text = BOARD.replace('name = "XnnpackExecutionProvider"', 'name = "Mine"\nlibrary = "my_provider"')
    assert read(text).providers[0].library == "my_provider"


def test_steps_that_are_no_list_are_refused() -> None:
    said = refused('name = "board"\ndescription = "a board"\nproviders = []\nrecipe = 3\n')
    assert said == "mine.toml: recipe: expected a list of tables, each with its pass, got 3"


def test_a_profile_of_the_user_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    with pytest.raises(TargetError, match=r"target profile .*board.toml: .*No such file"):
        load_target(path, profiles=profiles())
    path.write_text(BOARD, "utf-8")
    assert load_target(path, profiles=profiles()).name == "board"
    path.write_bytes(b'name = "\xff"')
    with pytest.raises(TargetError, match=r"target profile .*board.toml: .*utf-8"):
        load_target(path, profiles=profiles())


def test_what_a_profile_leaves_out_it_has_from_the_one_that_it_extends() -> None:
    child = read(CHILD + "[device]\nform = 'board'\n", board=BOARD)
    board = read(BOARD)
    assert (child.name, child.extends, child.device.form) == ("child", "board", "board")
    assert child.device.vendor == "Nobody"
    assert (child.hardware, child.recipe, child.session) == (board.hardware, board.recipe, board.session)


def test_a_profile_inherits_no_alias_and_no_proof_and_is_no_base() -> None:
    base = BOARD.replace("context = 1024", 'aliases = ["b"]\nproof = "run"\nbase = true')
    child = read(CHILD, board=base)
    assert (child.aliases, child.proof, child.base) == ((), "specified", False)


def test_tables_are_merged_and_numbers_and_lists_replaced() -> None:
    text = (
        CHILD
        + """
        [hardware]
        memory = { value = 2e9, source = "another", kind = "estimated" }
        usable = { value = 0.5, source = "a guess", kind = "estimated" }
        [numerics]
        block_sizes = [64]
        [[recipe]]
        pass = "prune"
    """
    )
    child = read(text, board=BOARD)
    assert child.hardware.memory == Number(2e9, "another", "estimated")
    assert child.hardware.usable
    assert child.hardware.efficiency.decode.keys() == {"any", "int4"}
    assert (child.numerics.block_sizes, child.numerics.arithmetic) == ((64,), {"int4": "int8"})
    assert [step.name for step in child.recipe] == ["prune"]


def test_a_number_is_not_put_together_of_two_files() -> None:
    said = refused(CHILD + "[hardware]\nmemory = { value = 2e9 }", board=BOARD)
    assert said == "mine.toml: hardware: memory: kind, source must be given"


@pytest.mark.parametrize(
    ("below", "mine", "message"),
    [
        (BOARD.replace("opset = 21", "opset = 99"), "", "board.toml: needs: opset: 99 is not"),
        (BOARD.replace("opset = 21", "opset = 99"), "[needs]\nopset = 21", "board.toml: needs: opset: 99 is not"),
        (BOARD.replace('pass = "quantize"', ""), "", "board.toml: recipe: step 1 must name its pass"),
        (BOARD, "[needs]\nopset = 99", "mine.toml: needs: opset: 99 is not"),
        (BOARD.replace(PROVIDER, ""), "", "mine.toml: providers must be given"),
        ("[", "", "board.toml: "),
        (BOARD + "extends = 'board'", "", "board.toml: session: no session entry is named 'extends'"),
    ],
)
def test_an_error_names_the_file_that_is_wrong(below: str, mine: str, message: str) -> None:
    assert message in refused(CHILD + mine, board=below)


def test_what_is_extended_must_be_there_and_come_to_an_end() -> None:
    assert refused(CHILD).startswith("mine.toml: extends: no target is named 'board'; known: none")
    circle = 'extends = "child"\n' + BOARD
    assert "board extends child extends board, without an end" in refused(CHILD, board=circle, child=CHILD)
    assert "mine.toml: extends: expected text, got 3" in refused(CHILD.replace('"board"', "3"))
