"""What may be shown of a text that somebody else wrote."""

from __future__ import annotations


def printable(text: str, instead: str) -> str:
    """The text with `instead` for every character that a terminal might obey, line ends included.

    Length and what is printable stay as they are, if `instead` is one printable character.
    """
    return "".join(each if each.isprintable() else instead for each in text)
