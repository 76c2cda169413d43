"""Foreign text made safe to show."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.plain import spell_out


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("box.example.com", "box.example.com"),
        ("señor München 東京 \U0001f600", "señor München 東京 \U0001f600"),
        ("\x1b[2J", "\\u{1B}[2J"),
        ("a\nb\r\tc\x9b", "a\\u{A}b\\u{D}\\u{9}c\\u{9B}"),
        ("\u202egpj.exe\u2066", "\\u{202E}gpj.exe\\u{2066}"),
        ("a\u2028b\u200bc", "a\\u{2028}b\\u{200B}c"),
        ("\udcff\ufffe\ue000", "\\u{DCFF}\\u{FFFE}\\u{E000}"),
        ("", ""),
    ],
)
def test_what_steers_is_spelt_out_and_what_is_read_stays(text: str, shown: str) -> None:
    assert spell_out(text) == shown


def test_what_is_to_be_kept_stays() -> None:
    assert spell_out("a\nb\x1b", keep="\n") == "a\nb\\u{1B}"


@given(st.text(alphabet=st.characters()))
def test_nothing_that_steers_is_left_and_twice_is_as_once(text: str) -> None:
    shown = spell_out(text)
    assert not [letter for letter in shown if unicodedata.category(letter) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}]
    assert spell_out(shown) == shown
    assert shown.encode().decode() == shown
