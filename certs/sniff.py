"""What a piece of DER is, told by its shape. Labels and file names are never asked."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from certs.errors import CertsError, DamagedError, TruncatedError
from certs.raw import BITS, GENERAL_TIME, INTEGER, OCTETS, OID, SEQUENCE, UTC_TIME, Node, cut, oid_text, promised_length, walk

KEYSTORES = (b"\xfe\xed\xfe\xed", b"\xce\xce\xce\xce")  # JKS and JCEKS


class Kind(Enum):
    """What it is. ``sentence`` says so to a person."""

    CERTIFICATE = "a certificate"
    REQUEST = "a signing request, not a certificate"
    CRL = "a revocation list"
    PKCS12 = "a PKCS#12 file"
    PKCS7 = "a PKCS#7 container"
    ENCRYPTED_KEY = "an encrypted private key"
    PRIVATE_KEY = "a private key"
    PUBLIC_KEY = "a public key"
    PARAMETERS = "key parameters"
    CERTIFICATES = "a row of certificates"
    OTHER = "something else"


def find_kind(der: bytes) -> Kind:
    """What the first element of ``der`` is.

    Raises:
        TruncatedError: it ends too early.
        DamagedError: it is no DER.

    """
    node = cut(der)
    if node.is_a(OID):
        return Kind.PARAMETERS
    if not node.is_a(SEQUENCE):
        return Kind.OTHER
    try:
        parts = node.children()
    except CertsError:
        return _kind_of_damaged(node)
    return _kind_of(parts)


def _kind_of(parts: tuple[Node, ...]) -> Kind:
    tags = "".join(_letter(part) for part in parts)
    for fits, kind in _SHAPES:
        if fits(tags, parts):
            return kind
    return _kind_of_signed(parts[0]) if tags == "ssb" else Kind.OTHER


def _names_pkcs7(node: Node) -> bool:
    return oid_text(node).startswith("1.2.840.113549.1.7.")


# By the kinds of the parts: n integer, s sequence, q octets, b bits, o identifier. The first that fits counts.
_SHAPES: tuple[tuple[Callable[[str, tuple[Node, ...]], bool], Kind], ...] = (
    (lambda tags, parts: tags in {"ns", "nss"} and _names_pkcs7(_first(parts[1])), Kind.PKCS12),
    (lambda tags, parts: tags[:1] == "o" and _names_pkcs7(parts[0]), Kind.PKCS7),
    (lambda tags, parts: tags == "sq" and _first(parts[0]).is_a(OID), Kind.ENCRYPTED_KEY),
    (lambda tags, parts: tags == "sb" and _first(parts[0]).is_a(OID), Kind.PUBLIC_KEY),
    (lambda tags, _: tags.startswith(("nsq", "nq", "nnnnn")), Kind.PRIVATE_KEY),
    (lambda tags, _: tags in {"nn", "nnn"} or (tags[:2] == "ns" and not {*tags} & {*"qb"}), Kind.PARAMETERS),
    (lambda tags, parts: bool(tags) and {*tags} == {"s"} and _is_certificate(parts[0]), Kind.CERTIFICATES),
)


def _kind_of_signed(inner: Node) -> Kind:
    try:
        fields = inner.children()
    except CertsError:
        return Kind.CERTIFICATE
    tags = "".join(_letter(part) for part in fields)
    bare = tags.lstrip("c")
    if bare.startswith("nssss"):
        return Kind.CERTIFICATE
    if bare.startswith(("nsst", "sst")):
        return Kind.CRL
    if bare.startswith("nss"):
        return Kind.REQUEST
    return Kind.CERTIFICATE if tags.startswith("c") else Kind.OTHER


def _is_certificate(node: Node) -> bool:
    try:
        parts = node.children()
    except CertsError:
        return False
    return "".join(_letter(part) for part in parts) == "ssb" and _kind_of_signed(parts[0]) is Kind.CERTIFICATE


def _kind_of_damaged(node: Node) -> Kind:
    """The outer length is right and something inside is not: say what it would have been, where that shows."""
    first = _first(node)
    if first.is_a(SEQUENCE):
        return Kind.CERTIFICATE
    raise DamagedError("It is not well-formed DER.", hint="Export it again from where it came from.")


def _letter(node: Node) -> str:
    if node.kind != 0:
        return "c"
    return {SEQUENCE: "s", INTEGER: "n", OCTETS: "q", BITS: "b", OID: "o", UTC_TIME: "t", GENERAL_TIME: "t"}.get(node.tag, "x")


def _first(node: Node) -> Node:
    try:
        return cut(node.content)
    except CertsError:
        return Node(3, 0, b"", b"", built=False)


def looks_binary(data: bytes) -> bool:
    """Whether it begins as DER or BER does, with a length that could be one."""
    if data[:4] in KEYSTORES:
        return True
    if len(data) < 2 or data[0] != 0x30:
        return False
    # Text may begin with "0" (0x30) too: then the length byte would be a digit or a letter, and what follows is text.
    promised = promised_length(data)
    if promised is None:
        return data[1] == 0x80
    return promised == len(data) or not data[:64].isascii() or b"\0" in data[:64] or bool({*data[:64]} & {*range(1, 9)})


def split_elements(data: bytes) -> tuple[list[bytes], bytes]:
    """The elements that stand one after the other, and the bytes after the last that are none.

    Raises:
        TruncatedError: not even the first is whole.

    """
    found: list[bytes] = []
    at, elements = 0, walk(data)
    while at < len(data) and data[at] == 0x30 and len(found) < 5000:
        try:
            node = next(elements)
        except TruncatedError:
            if not found:
                raise
            break
        except CertsError:
            break
        found.append(node.whole)
        at += len(node.whole)
    return found, data[at:]
