"""sdk, scaling: prompts that are made of other texts: `str.format` with names alone, which reaches nothing else."""

from collections.abc import Sequence
from string import Formatter

from edgewise.errors import OptionError


def check_template(option: str, template: str, *, needed: str, others: Sequence[str]) -> None:
    """Raises OptionError for what is no template, lacks the text it is for, or asks for one that there is not."""
    try:
        fields = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise OptionError(f"{option} is no template: {error}") from error
    if needed not in fields or not fields <= {needed, *others}:
        may = " and ".join(f"{{{name}}}" for name in others)
        raise OptionError(f"{option} is {template!r}; it must hold {{{needed}}}, and may hold {may}")
