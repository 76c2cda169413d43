"""Foreign text made safe to show: what steers a terminal or a reader's eye, instead of being read, is spelt out."""

from __future__ import annotations

import unicodedata

_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def spell_out(text: str, *, keep: str = "") -> str:
    r"""``text`` with ``\u{1B}`` for each control, direction mark, invisible sign, line separator, lone surrogate and unassigned code point.

    Applied twice it changes nothing more. ``keep`` holds characters that stay as they are, such as a line break.
    """
    return text if text.isprintable() else "".join(_spell(letter, keep) for letter in text)


def _spell(letter: str, keep: str) -> str:
    if letter.isprintable() or letter in keep or unicodedata.category(letter) not in _UNSAFE:
        return letter
    return f"\\u{{{ord(letter):X}}}"
