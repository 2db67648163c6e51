"""Tokens, of which the box keeps digests."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pairing.tokens import new_token, same_token, token_digest


def test_a_token_is_its_own_only() -> None:
    one, other = new_token(), new_token()
    assert one != other
    assert same_token(one, token_digest(one))
    assert not same_token(other, token_digest(one))
    assert one not in token_digest(one)


@settings(max_examples=30)
@given(st.text(), st.text())
def test_any_text_is_just_no_token(token: str, digest: str) -> None:
    assert same_token(token, digest) == (digest == token_digest(token))
