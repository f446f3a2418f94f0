"""tests: targets whose graphs leave their cache to the runtime, with lengths that are fixed, or are not; on the CPU."""

from edgewise.bundle.manifest import Provider
from edgewise.recipe import RecipeStep
from edgewise.target import Lengths, Needs, Target

CPU = (Provider("CPUExecutionProvider"),)
CONTEXT = 320  # two whole pieces of a prompt and a half
INT4 = RecipeStep("quantize", {"bits": 4, "block_size": 32, "symmetric": True})

FIXED = Target(
    "fixed",
    "two graphs of fixed lengths",
    CPU,
    needs=Needs(static=Lengths(128)),
    context=CONTEXT,
    recipe=(INT4,),
    lowering=(RecipeStep("lower-static"),),
)
