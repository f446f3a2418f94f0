"""sdk, text: the end of a text that may be the beginning of something."""


def overlap(text: str, string: str) -> int:
    """How many characters at the end of the text begin the string, but are not yet all of it.

    >>> overlap("a stop", "stopped")
    4
    """
    return next((n for n in range(min(len(text), len(string) - 1), 0, -1) if string.startswith(text[-n:])), 0)
