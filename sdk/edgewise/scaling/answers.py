"""sdk, scaling: the answer in a text, in a form in which equal answers are equal texts."""

import re
from collections.abc import Callable

from edgewise.errors import OptionError
from edgewise.options import unknown

Extract = Callable[[str], str | None]  # the answer in a text; None where there is none
NUMBER = re.compile(r"(?<![\w.])[-+\u2212]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\w])")
DIGITS = re.compile(r"([-+]?)(\d{1,3}(?:,\d{3})+|\d+)(?:\.(\d*))?", re.ASCII)
PATTERN = "regex:"
MINUS = "\u2212"  # as typesetters have it


def last_number(text: str) -> str | None:
    """The last number, without thousands separators and needless zeros: "1,050.0" is "1050"."""
    found = NUMBER.findall(text)
    return number(found[-1]) if found else None


def number(text: str) -> str:
    """A number in canonical form; what is none stays as it is, without space around it."""
    found = DIGITS.fullmatch(text.strip().replace(MINUS, "-"))
    if found is None:
        return text.strip()
    sign, digits, fraction = found.groups()
    fraction = (fraction or "").rstrip("0")
    value = (digits.replace(",", "").lstrip("0") or "0") + (f".{fraction}" if fraction else "")
    return f"-{value}" if sign == "-" and value != "0" else value


def boxed(text: str) -> str | None:
    r"""What stands in the last `\boxed{...}`, with the braces in it balanced."""
    start = text.rfind("\\boxed{")
    depth, begin = 0, start + len("\\boxed{")
    for end in range(begin, len(text)) if start >= 0 else ():
        depth += (text[end] == "{") - (text[end] == "}")
        if depth < 0:
            return number(text[begin:end])
    return None


def last_line(text: str) -> str | None:
    """The last line that is not empty, without space around it."""
    lines = text.split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), None)


def whole(text: str) -> str | None:
    """All of it, with space of any kind as one space, none around it, in lower case; None where nothing is left."""
    return " ".join(text.split()).casefold() or None


EXTRACTS: dict[str, Extract] = {
    "boxed": boxed,
    "last_line": last_line,
    "last_number": last_number,
    "whole": whole,
}


def find_extract(given: str | Extract) -> Extract:
    """A function as it is, one by name, or `regex:PATTERN`: the last match, of its first group where it has one."""
    if not isinstance(given, str):
        return given
    if given.startswith(PATTERN):
        return _pattern(given.removeprefix(PATTERN))
    if given not in EXTRACTS:
        raise OptionError(unknown("way to find an answer", given, [*EXTRACTS, f"{PATTERN}PATTERN"]))
    return EXTRACTS[given]


def _pattern(pattern: str) -> Extract:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise OptionError(f"'{pattern}' is not a regular expression: {error}") from error

    def extract(text: str) -> str | None:
        found = [match[compiled.groups and 1] for match in compiled.finditer(text)]
        return number(found[-1]) if found and found[-1] else None

    return extract
