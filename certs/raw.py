"""A certificate as bytes: its fields cut out along the DER lengths, nothing interpreted.

The library refuses a whole certificate for one bad date or one bad extension. Cut this way, every other field stays readable, and
rules can judge how a field was written as well as what it says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from asn1crypto import core, parser

from certs.errors import CertsError, DamagedError, TruncatedError

SEQUENCE, SET, OCTETS, BITS, INTEGER, OID, BOOLEAN, NULL = 16, 17, 4, 3, 2, 6, 1, 5
UTC_TIME, GENERAL_TIME = 23, 24
UNIVERSAL, CONTEXT = 0, 2
DEPTH = 40


@dataclass(frozen=True)
class Node:
    """One DER element. ``whole`` holds it with its header, ``content`` without."""

    kind: int
    tag: int
    content: bytes
    whole: bytes
    built: bool

    def is_a(self, tag: int) -> bool:
        """Whether it is this universal type."""
        return self.kind == UNIVERSAL and self.tag == tag

    def is_context(self, tag: int) -> bool:
        """Whether it carries this context-specific tag."""
        return self.kind == CONTEXT and self.tag == tag

    def children(self) -> tuple[Node, ...]:
        """The elements in it.

        Raises:
            DamagedError: it is no row of elements.

        """
        return tuple(walk(self.content))


def cut(data: bytes) -> Node:
    """The first element of ``data``.

    Raises:
        TruncatedError: its header promises more than is there.
        DamagedError: it does not begin with an element.

    """
    return _cut_at(data, 0)[0]


def _cut_at(data: bytes, at: int) -> tuple[Node, int]:
    try:
        # The public parse() copies the rest of the data for each element: quadratic on hostile input.
        (kind, method, tag, header, content, trailer), end = parser._parse(data, len(data), at)  # noqa: SLF001 - see above
    except (ValueError, IndexError, TypeError, OverflowError, RecursionError) as error:
        there = len(data) - at
        promised = promised_length(data[at : at + 12])
        if promised is not None and promised > there:
            raise TruncatedError(
                f"It is cut off: its header says {promised:,} bytes, and there are {there:,}.",
                hint="Copy it again from where it came from, in binary mode.",
                promised=promised,
                there=there,
            ) from error
        raise DamagedError("It is not well-formed DER.", hint="Export it again from where it came from.") from error
    return Node(kind, tag, content, header + content + trailer, bool(method)), end


def promised_length(data: bytes) -> int | None:
    """How long the first element of ``data`` says it is, header included; None where that cannot be told (indefinite length)."""
    if len(data) < 2 or data[1] == 0x80:
        return None
    if data[1] < 0x80:
        return 2 + data[1]
    count = data[1] & 0x7F
    if count > 8 or len(data) < 2 + count:
        return None
    return 2 + count + int.from_bytes(data[2 : 2 + count], "big")


def walk(data: bytes) -> Iterator[Node]:
    """The elements that stand one after the other in ``data``."""
    at = 0
    while at < len(data):
        node, at = _cut_at(data, at)
        yield node


def is_der(data: bytes) -> bool:
    """Whether every length in ``data`` is definite and shortest, as DER wants and BER does not."""
    try:
        return all(_is_strict(node, DEPTH) for node in walk(data))
    except CertsError:
        return False


def _is_strict(node: Node, depth: int) -> bool:
    header = len(node.whole) - len(node.content)
    length = len(node.content)
    shortest = 2 if length < 0x80 else 2 + (length.bit_length() + 7) // 8
    if header != shortest and node.tag < 31:
        return False
    if not node.built:
        return True
    return depth > 0 and all(_is_strict(child, depth - 1) for child in node.children())


def oid_text(node: Node) -> str:
    """An object identifier as dotted text; "" where the element is none."""
    if not node.is_a(OID):
        return ""
    try:
        return str(core.ObjectIdentifier.load(node.whole).dotted)
    except (ValueError, TypeError, IndexError):
        return ""


@dataclass(frozen=True)
class RawExtension:
    """One extension: dotted identifier, critical or not, and the DER inside its octet string."""

    oid: str
    critical: bool
    value: bytes


@dataclass(frozen=True)
class RawCert:
    """The fields of a certificate, each as the DER that stands in it. ``version`` counts from 1."""

    tbs: bytes
    version: int
    serial: bytes
    inner_algorithm: bytes
    issuer: bytes
    not_before: Node
    not_after: Node
    subject: bytes
    spki: bytes
    extensions: tuple[RawExtension, ...]
    outer_algorithm: bytes
    signature: bytes


def cut_certificate(der: bytes) -> RawCert:
    """Cut a certificate into its fields.

    Raises:
        DamagedError: it has not the shape of a certificate.

    """
    tbs, algorithm, signature = _shaped(cut(der), 3)
    if not (tbs.is_a(SEQUENCE) and algorithm.is_a(SEQUENCE) and signature.is_a(BITS)):
        raise _no_certificate()
    fields = list(tbs.children())
    version = 1
    if fields and fields[0].is_context(0):
        version = int.from_bytes(cut(fields.pop(0).content).content[:4], "big") + 1
    if len(fields) < 6:
        raise _no_certificate()
    serial, inner, issuer, validity, subject, spki = fields[:6]
    before, after = _shaped(validity, 2)
    if not (serial.is_a(INTEGER) and all(part.is_a(SEQUENCE) for part in (inner, issuer, subject, spki))):
        raise _no_certificate()
    return RawCert(
        tbs=tbs.whole,
        version=version,
        serial=serial.content,
        inner_algorithm=inner.whole,
        issuer=issuer.whole,
        not_before=before,
        not_after=after,
        subject=subject.whole,
        spki=spki.whole,
        extensions=tuple(_extensions(fields[6:])),
        outer_algorithm=algorithm.whole,
        signature=signature.content[1:],
    )


def _extensions(rest: list[Node]) -> Iterator[RawExtension]:
    for field in rest:
        if not field.is_context(3):
            continue
        for item in cut(field.content).children():
            parts = item.children()
            if len(parts) < 2 or not parts[-1].is_a(OCTETS):
                raise _no_certificate()
            critical = len(parts) > 2 and parts[1].is_a(BOOLEAN) and parts[1].content != b"\0"
            yield RawExtension(oid_text(parts[0]), critical, parts[-1].content)


def _shaped(node: Node, count: int) -> tuple[Node, ...]:
    parts = node.children()
    if not node.is_a(SEQUENCE) or len(parts) != count:
        raise _no_certificate()
    return parts


def _no_certificate() -> DamagedError:
    return DamagedError("It has not the shape of a certificate.", hint="Export it again from where it came from.")
