"""tests: a profile with something of everything, what goes on from it, and the lines that say what is wrong in one."""

import pytest

from edgewise.errors import OptionError, TargetError
from edgewise.options import unknown
from edgewise.profile import Profile, Profiles, read_profile, read_target
from edgewise.target import Target

PROVIDER = """[[providers]]
name = "XnnpackExecutionProvider"
options = { intra_op_num_threads = "2" }"""

BOARD = f"""
name = "board"
description = "a board with one gigabyte"
context = 1024

{PROVIDER}

[device]
vendor = "Nobody"
os = ["linux"]

[hardware]
memory = {{ value = 1e9, source = "its data sheet", kind = "published" }}

[hardware.efficiency.decode]
any = {{ value = 0.5, source = "a guess", kind = "estimated" }}
int4 = {{ value = 0.6, source = "a run", kind = "measured" }}

[hardware.kernels."int4 block 32"]
decode = {{ value = 1e9, source = "a run", kind = "measured" }}
prefill = {{ value = 9e9, source = "a run", kind = "measured" }}

[numerics]
block_sizes = [32, 128]
arithmetic = {{ int4 = "int8" }}

[needs]
opset = 21
static = {{ prefill = 64 }}
denied = ["com.microsoft:GroupQueryAttention"]

[needs.types]
MatMul = ["float16"]

[[recipe]]
pass = "quantize"
bits = 8

[[calibrated]]
pass = "accuracy-level"

[[lowering]]
pass = "lower-ort"

[session]
"session.intra_op.allow_spinning" = "0"
"""

CHILD = """
name = "child"
description = "the same board with a fan"
extends = "board"
"""


def profiles(**texts: str) -> Profiles:
    """Installed profiles, by their names."""

    def find(name: str) -> Profile:
        if name not in texts:
            raise OptionError(unknown("target", name, texts))
        return read_profile(texts[name], where=f"{name}.toml")

    return find


def read(text: str, **others: str) -> Target:
    return read_target(text, where="mine.toml", profiles=profiles(**others))


def refused(text: str, **others: str) -> str:
    """The line that says what is wrong."""
    with pytest.raises(TargetError) as caught:
        read(text, **others)
    assert "\n" not in str(caught.value)
    return str(caught.value)
