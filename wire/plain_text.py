"""What may be shown of a text that somebody else wrote, or the system."""

from __future__ import annotations


def printable(text: str, instead: str) -> str:
    """The text with `instead` for every character that a terminal might obey, line ends included.

    Length and what is printable stay as they are, if `instead` is one printable character.
    """
    return "".join(each if each.isprintable() else instead for each in text)


def reason(error: OSError) -> str:
    """What the system says of a failure, amid a line: without its number, which nobody knows."""
    return (error.strerror or str(error) or type(error).__name__).lower()
