"""What pages are made of, as values. A page says what it shows; the installed release's frame says how.

Names of fields, and how a field wears its label, differ from box to box (they come from a secret of the box), so that nothing outside
can lean on them: the words are what counts.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from enum import Enum

Facts = dict[str, object]


@dataclass(frozen=True)
class Say:
    """A sentence to be translated; ``facts`` fill its braces."""

    text: str
    facts: Facts = field(default_factory=dict)


Shown = str | Say  # plain text is shown as it is, Say is translated


class Input(Enum):
    TEXT = "text"
    PASSWORD = "password"  # noqa: S105 - a kind of field
    FILE = "file"
    TICK = "checkbox"
    CHOICE = "select"
    AREA = "textarea"
    HIDDEN = "hidden"


@dataclass(frozen=True)
class Field:
    """One field. ``key`` is our name for it; ``options`` (value, shown) only for a choice; ``checked`` only for a tick box."""

    key: str
    label: Shown = ""
    kind: Input = Input.TEXT
    value: str = ""
    options: tuple[tuple[str, Shown], ...] = ()
    checked: bool = False
    part: str = "field"


@dataclass(frozen=True)
class Tick:
    """A tick box in a row of a table; ``label`` is for who cannot see the row."""

    key: str
    value: str
    label: Shown
    checked: bool = False
    part: str = "tick"


@dataclass(frozen=True)
class Button:
    key: str
    label: Say
    enabled: bool = True
    part: str = "button"


@dataclass(frozen=True)
class Link:
    """To a page of the same console; ``query`` is added to its address."""

    label: Shown
    page: str
    query: str = ""
    part: str = "link"


@dataclass(frozen=True)
class Text:
    text: Shown
    part: str = "text"


@dataclass(frozen=True)
class Table:
    """``grey``: numbers of the rows that are shown greyed out."""

    headers: tuple[Say, ...]
    rows: tuple[tuple[object, ...], ...]
    grey: frozenset[int] = frozenset()
    empty: Say = Say("None")
    part: str = "table"


@dataclass(frozen=True)
class Listing:
    """Facts: a name and its value each."""

    rows: tuple[tuple[Shown, Shown], ...]
    part: str = "facts"


@dataclass(frozen=True)
class Form:
    """What is sent together. ``parts``: fields, buttons, tables, texts, in the order they are shown."""

    parts: tuple[object, ...]
    page: str = ""  # another page that takes it; "" the page it stands on
    query: str = ""
    part: str = "form"


@dataclass(frozen=True)
class Heading:
    """Above a group of fields in a form."""

    text: Say
    part: str = "heading"


@dataclass(frozen=True)
class Section:
    heading: Say
    parts: tuple[object, ...]


@dataclass(frozen=True)
class Page:
    """``refresh``: seconds after which the page loads itself again; 0 never."""

    title: Say
    sections: tuple[Section, ...]
    refresh: int = 0


class Names:
    """The names that this box gives its pages and fields."""

    def __init__(self, secret: str) -> None:
        self._secret = bytes.fromhex(secret)

    def _digest(self, *words: str) -> str:
        return hmac.new(self._secret, "\0".join(words).encode(), hashlib.sha256).hexdigest()

    def slug(self, console: str, page: str) -> str:
        """Address of a page below its console."""
        return self._digest("page", console, page)[:10]

    def name(self, key: str) -> str:
        """Name of a field or button in a form."""
        digest = self._digest("field", key)
        return f"{chr(ord('a') + int(digest[:2], 16) % 26)}{digest[2:6]}[{digest[6:11]}]"

    def style(self, key: str, styles: int) -> int:
        """Which of ``styles`` ways to wear its label a field or button has on this box."""
        return int(self._digest("style", key)[:4], 16) % styles
