"""What people carry: URIs and codes, and what is said of those that they mistyped."""

from __future__ import annotations

import contextlib
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairing.uri import PairingUri, new_code, new_secret, parse_code, shown_code

BOX = "ab" * 32
SECRET = "a2" * 13


@pytest.mark.parametrize("host", ["192.0.2.7", "box.local", "::1", "2001:db8::7"])
def test_a_uri_comes_back(host: str) -> None:
    uri = PairingUri(host, 7431, BOX, SECRET)
    assert PairingUri.parse(f" {uri}\n") == uri
    assert PairingUri.parse(str(uri).upper().replace("IONN://", "ionn://").replace(
        "/PAIR?BOX=", "/pair?box=").replace("&SECRET=", "&secret=")) == uri  # fmt: skip


GOOD = f"ionn://box:7431/pair?box={BOX}&secret={SECRET}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "box",
        "ionn://box:7431",
        GOOD.replace("ionn", "http"),
        GOOD.replace(":7431", ""),
        GOOD.replace("7431", "0"),
        GOOD.replace("7431", "70000"),
        GOOD.replace("7431", "x"),
        GOOD.replace("box:", ":"),
        *(GOOD.replace("box:", f"b{each}x:") for each in ("\x1bc", "\x07", "\x9b2J", "\u202e")),
        GOOD.replace("ionn://", "ionn://me@"),
        GOOD.replace("/pair", "/pare"),
        GOOD.replace(BOX, BOX[:-1]),
        GOOD.replace(BOX, "g" * 64),
        GOOD.replace(SECRET, SECRET[1:]),
        GOOD.replace(SECRET, "1" * 26),
        GOOD.replace("&", "&box=&"),
        f"{GOOD}&secret={SECRET}",
        f"{GOOD}&more=1",
        f"{GOOD}#x",
        f"ionn://box:7431/pair?secret={SECRET}",
        GOOD + "x" * 600,
    ],
)
def test_a_malformed_uri_is_refused_and_its_secret_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="pairing URI") as refused:
        PairingUri.parse(text)
    assert SECRET not in str(refused.value)


@given(st.text(max_size=600))
def test_any_text_is_a_uri_or_a_value_error(text: str) -> None:
    for tried in (text, GOOD[: len(text) % len(GOOD)] + text):
        with contextlib.suppress(ValueError):
            assert PairingUri.parse(str(PairingUri.parse(tried))) == PairingUri.parse(tried)


def test_secrets_are_not_shown() -> None:
    assert SECRET not in repr(PairingUri("box", 1, BOX, SECRET))


def test_secrets_and_codes_are_random() -> None:
    assert len({new_secret() for _ in range(100)}) == 100
    assert all(re.fullmatch("[a-z2-7]{26}", new_secret()) for _ in range(100))
    assert len({new_code() for _ in range(100)}) > 95
    assert all(re.fullmatch(r"\d{4}-\d{4}", new_code()) for _ in range(100))


@given(st.integers(0, 99_999_999))
def test_one_code_in_ten_can_be_one(number: int) -> None:
    digits = f"{number:08}"
    stem = digits[:-1]
    good = [last for last in "0123456789" if _is_code(stem + last)]
    assert len(good) == 1


@pytest.mark.parametrize("at", range(8))
def test_every_slip_of_the_finger_is_noticed(at: int) -> None:
    code = parse_code(new_code())
    for wrong in set("0123456789") - {code[at]}:
        assert not _is_code(code[:at] + wrong + code[at + 1 :])
    for (i, left), (_, right) in pairwise(enumerate(code)):
        if left != right:
            assert not _is_code(code[:i] + right + left + code[i + 2 :])


@pytest.mark.parametrize("text", ["", "1234", "123456789", "abcdefgh", "1234-567x", "١٢٣٤٥٦٧٨"])
def test_what_cannot_be_a_code_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="8 digits"):
        parse_code(text)


def test_codes_may_be_typed_in_any_way() -> None:
    code = new_code()
    digits = code.replace("-", "")
    assert parse_code(f" {digits[:2]} {digits[2:]} ") == parse_code(code) == digits
    assert shown_code(digits) == code


def _is_code(digits: str) -> bool:
    try:
        return parse_code(digits) == digits
    except ValueError:
        return False
