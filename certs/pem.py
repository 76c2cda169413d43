"""Text with certificates in it: blocks found in linear time, and a bounded repair of what mail, chat and wikis do to them."""

from __future__ import annotations

import base64
import binascii
import html
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from certs.errors import CertsError, DamagedError

_MARK = re.compile(rb"-{2,6}[ \t]*(BEGIN|END)[ \t]+([A-Za-z0-9 #._/]{1,64}?)[ \t]*-{2,6}", re.IGNORECASE)
_HEADER = re.compile(rb"[A-Za-z][A-Za-z0-9-]{0,40}:[ \t]?")
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/=]")
_SPACE = re.compile(rb"[\s\0]+")
_INVISIBLE = dict.fromkeys([0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF, 0x00AD, 0x200E, 0x200F, 0x202A, 0x202C])
_DASHES = dict.fromkeys([0x2010, 0x2011, 0x2012, 0x2013, 0x2014, 0x2015, 0x2212, 0xFE58, 0xFF0D], "-") | {0x2014: "--", 0x2015: "--"}
_SPACES = dict.fromkeys([0x00A0, 0x2007, 0x2009, 0x202F, 0x3000, 0x2028, 0x2029], " ")
_QUOTED = re.compile(r"(?m)^[ \t]*(?:[>|#*][ \t]?)+(?=[-A-Za-z0-9+/=])")
_TAGS = re.compile(r"(?i)<\s*(?:br|/?p|/?div|/?span|/?pre|/?code)[^<>]{0,200}>")


@dataclass(frozen=True)
class Block:
    """One PEM block: where it stands (counted from 1), its label, its headers and its decoded body."""

    number: int
    line: int
    label: str
    der: bytes = field(repr=False)
    headers: tuple[tuple[str, str], ...] = ()
    failure: CertsError | None = None

    @property
    def where(self) -> str:
        """``block 2, line 31``."""
        return f"block {self.number}, line {self.line}"

    @property
    def is_encrypted(self) -> bool:
        """Whether OpenSSL's old PEM encryption wraps it."""
        return any(name.lower() == "proc-type" and "ENCRYPTED" in value.upper() for name, value in self.headers)

    @property
    def cipher(self) -> str:
        """The cipher of that encryption, "" where it is not said."""
        return next((value.split(",")[0].strip() for name, value in self.headers if name.lower() == "dek-info"), "")

    @property
    def iv(self) -> str:
        """Its initialisation vector as the header writes it, in hex."""
        return next((value.partition(",")[2].strip() for name, value in self.headers if name.lower() == "dek-info"), "")

    def render(self) -> bytes:
        """The block again, as it should have been written."""
        body = base64.encodebytes(self.der)
        headers = "".join(f"{name}: {value}\n" for name, value in self.headers).encode()
        label = self.label.upper().encode()
        return b"-----BEGIN " + label + b"-----\n" + headers + (b"\n" if headers else b"") + body + b"-----END " + label + b"-----\n"


def find_blocks(text: bytes) -> Iterator[Block]:
    """The PEM blocks in ``text``, in order, each with its own failure where it has one."""
    opened: re.Match[bytes] | None = None
    number = line = counted = 0
    for mark in _MARK.finditer(text):
        begins = mark[1].upper() == b"BEGIN"
        if opened is not None:
            yield _block(text, opened, mark.start(), number, line, closed=not begins)
            opened = None
        if begins:
            line += text.count(b"\n", counted, mark.start()) + (1 if number == 0 else 0)
            number, counted, opened = number + 1, mark.start(), mark
    if opened is not None:
        yield _block(text, opened, len(text), number, line, closed=False)


def _block(text: bytes, opened: re.Match[bytes], end: int, number: int, line: int, *, closed: bool) -> Block:
    label = opened[2].decode("ascii", errors="replace").strip()
    lines = text[opened.end() : end].replace(b"\r", b"\n").split(b"\n")
    headers: list[tuple[str, str]] = []
    body: list[bytes] = []
    for raw in lines:
        row = raw.strip(b" \t\0\x0b\x0c\xef\xbb\xbf")
        if not body and len(headers) < 50 and _HEADER.match(row):
            name, _, value = row.partition(b":")
            headers.append((name.decode("ascii", errors="replace"), value.strip().decode("ascii", errors="replace")))
        elif row:
            body.append(row)
    try:
        der = decode_base64(b"".join(body))
        failure: CertsError | None = None
    except CertsError as error:
        der, failure = b"", error
    if not closed and failure is None and not der:
        failure = DamagedError("The block has a beginning and no end.", hint="Copy it again, the END line included.")
    return Block(number, line, label, der, tuple(headers), failure)


def decode_base64(body: bytes) -> bytes:
    """Base64 with its white space, URL-safe or not, padded or not.

    Raises:
        DamagedError: a character that is none, named with its place.

    """
    packed = _SPACE.sub(b"", body).replace(b"-", b"+").replace(b"_", b"/")
    wrong = _NOT_BASE64.search(packed)
    if wrong is not None:
        raise DamagedError(
            f"The text has the character {wrong[0].decode('latin-1')!r}, which base64 has not, after {wrong.start()} characters.",
            hint="Copy it again; a mail or chat program may have changed it.",
            position=wrong.start(),
        )
    packed = packed.rstrip(b"=")
    if len(packed) % 4 == 1:
        raise DamagedError("A character of the base64 text is missing or too many.", hint="Copy it again, every line whole.")
    try:
        return base64.b64decode(packed + b"=" * (-len(packed) % 4))
    except binascii.Error as error:
        raise DamagedError(f"The base64 text is malformed: {error}.", hint="Copy it again.") from error


def repair(data: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Undo what mail, chat, spreadsheets and configuration files do to PEM text. Answers the text and what was undone.

    Each change is tried once and in one pass; nothing is guessed about the base64 itself.
    """
    text, done = _decode_text(data)
    for what, change in _CHANGES:
        changed = change(text)
        if changed != text:
            text = changed
            done.append(what)
    return text.encode(), tuple(done)


def _decode_text(data: bytes) -> tuple[str, list[str]]:
    for mark, codec in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            return data.decode(codec, errors="replace"), ["UTF-16 text"]
    head = data[:400]
    if head.count(b"\0") * 3 > len(head):
        codec = "utf-16-le" if head[1::2].count(b"\0") >= head[::2].count(b"\0") else "utf-16-be"
        return data.decode(codec, errors="replace"), ["UTF-16 text without its mark"]
    try:
        return data.decode("utf-8"), []
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace"), []


_WRONG_DASHES = re.compile(r"(?<!-)-{1,12}[ \t]*(?i:(BEGIN|END))[ \t]+([A-Z0-9a-z ]{3,40}?)[ \t]*-{1,12}(?!-)")
_CHANGES: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("line breaks written as \\n", lambda text: re.sub(r"(?:\\r)?\\n|\\r", "\n", text)),
    ("HTML tags", lambda text: _TAGS.sub("\n", text)),
    ("HTML entities", lambda text: html.unescape(text) if "&" in text else text),
    ("invisible characters", lambda text: text.translate(_INVISIBLE)),
    ("typographic dashes", lambda text: text.translate(_DASHES)),
    ("unusual spaces", lambda text: text.translate(_SPACES)),
    ("quote marks of a mail", lambda text: _QUOTED.sub("", text)),
    ("dashes of a BEGIN or END line", lambda text: _WRONG_DASHES.sub(r"-----\1 \2-----", text)),
)


def find_bare_base64(text: bytes) -> bytes | None:
    """What a text that is nothing but base64 decodes to; None where it is something else."""
    packed = _SPACE.sub(b"", text.removeprefix(b"\xef\xbb\xbf")).strip(b"\"'")
    if len(packed) < 64 or _NOT_BASE64.search(packed.replace(b"-", b"+").replace(b"_", b"/")):
        return None
    try:
        return decode_base64(packed)
    except CertsError:
        return None
