"""A value that must not be seen, and the references by which plans name one."""

from __future__ import annotations

import base64
import hmac
import html
import json
import shlex
import urllib.parse
from collections.abc import Iterator
from typing import NoReturn, final

MASK = "***"


@final
class Secret:
    """Holds a secret text. Prints as ``***``; cannot be pickled, copied into JSON, formatted or compared with plain text by accident.

    Python cannot wipe memory, so this promises less than it looks like: the value does not *leak through printing*. Reveal it at the
    last moment and hand it over on a pipe or in a request body, never in argv.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        if not isinstance(value, str):
            raise TypeError("a Secret holds text")
        self._value = value

    def reveal(self) -> str:
        """The secret itself."""
        return self._value

    def to_bytes(self) -> bytes:
        """The secret itself in UTF-8; bytes of the environment that were no UTF-8 come out as they went in."""
        return self._value.encode(errors="surrogateescape")

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self.to_bytes(), other.to_bytes())

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __bool__(self) -> bool:
        return bool(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is never serialised")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a Secret is never serialised")


def scrub(text: str, *secrets: Secret) -> str:
    """``text`` with every given secret replaced by ``***``; for foreign output that may echo what it was given.

    Also finds a secret that was quoted, escaped or encoded on the way, and the single lines of one that has several.
    """
    forms = {form for secret in secrets for form in _forms(secret.reveal())}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, MASK)
    return text


def _forms(value: str) -> Iterator[str]:
    """How programs show a text: as it is, in JSON, Python, HTML, URLs, base64, and in Latin-1 that was read as UTF-8."""
    for plain in {value, *value.splitlines()} - {""}:
        raw = plain.encode(errors="surrogateescape")
        yield plain
        yield raw.decode(errors="replace")
        yield plain.encode("latin-1", errors="replace").decode(errors="replace")
        yield json.dumps(plain)[1:-1]
        yield json.dumps(plain, ensure_ascii=False)[1:-1]
        yield repr(plain)[1:-1]
        yield html.escape(plain)
        yield shlex.quote(plain)
        yield urllib.parse.quote(raw, safe="")
        yield urllib.parse.quote_plus(raw)
        yield base64.b64encode(raw).decode()
