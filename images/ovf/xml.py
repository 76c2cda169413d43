"""The XML under an OVF descriptor: parsed with nothing fetched, nothing expanded and narrow limits; read by local names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from images.import_errors import HostileSourceError, OvfError

if TYPE_CHECKING:
    from lxml import etree

LONGEST = 8 << 20
MOST_ELEMENTS = 50_000
DEEPEST = 64
ENVELOPES = (
    "http://schemas.dmtf.org/ovf/envelope/1",
    "http://schemas.dmtf.org/ovf/envelope/2",
    "http://schemas.dmtf.org/ovf/1/envelope",
    "http://www.vmware.com/schema/ovf/1/envelope",
)
VMWARE = "http://www.vmware.com/schema/ovf"
VIRTUALBOX = "http://www.virtualbox.org/ovf/machine"
OURS = "urn:boxshift:ovf:1"
_CONTROLS = re.compile(r"[\x7f-\x9f]")
_TRUE = ("true", "1")
_FALSE = ("false", "0")


def parse_xml(raw: bytes) -> etree._Element:
    """The root element.

    Raises:
        OvfError: it is no XML.
        HostileSourceError: it declares entities, or is absurdly large or deep.

    """
    from lxml import etree

    if len(raw) > LONGEST:
        raise HostileSourceError("The OVF descriptor is absurdly long.")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, attribute_defaults=False,
        huge_tree=False, remove_comments=True, remove_pis=True, recover=False,
    )  # fmt: skip
    try:
        root = etree.fromstring(raw, parser)
    except (etree.XMLSyntaxError, ValueError, LookupError) as error:
        raise OvfError(f"The OVF descriptor is no XML that can be read: {str(error)[:200]}", hint="Load the bundle again.") from error
    if root.getroottree().docinfo.doctype:  # type: ignore[union-attr]
        raise HostileSourceError(
            "The OVF descriptor declares a document type, which descriptors never need.", hint="Do not use this bundle."
        )
    _verify_shape(root)
    return root


def _verify_shape(root: etree._Element) -> None:
    todo, seen = [(root, 1)], 0
    while todo:
        element, depth = todo.pop()
        seen += 1
        if depth > DEEPEST or seen > MOST_ELEMENTS:
            raise HostileSourceError("The OVF descriptor is absurdly deep or has absurdly many elements.")
        todo += [(child, depth + 1) for child in element]


def name_of(element: etree._Element) -> str:
    """Its local name."""
    return str(element.tag).rpartition("}")[2]


def space_of(element: etree._Element) -> str:
    """Its namespace; empty where it has none."""
    head, brace, _ = str(element.tag).rpartition("}")
    return head[1:] if brace else ""


def children(element: etree._Element | None, *names: str) -> Iterator[etree._Element]:
    """Its children of these local names, all where none is given."""
    if element is not None:
        yield from (child for child in element if not names or name_of(child) in names)


def child(element: etree._Element | None, name: str) -> etree._Element | None:
    """Its first child of that local name."""
    return next(children(element, name), None)


def text_of(element: etree._Element | None, name: str = "") -> str:
    """The text in it, or in its first child of that local name, trimmed."""
    found = child(element, name) if name else element
    return _harmless(found.text or "") if found is not None else ""


def attribute(element: etree._Element, name: str) -> str | None:
    """The attribute of that local name: the envelope's own, or without a namespace."""
    for key, value in element.attrib.items():
        space, brace, local = str(key).rpartition("}")
        if local == name and (not brace or space[1:] in (*ENVELOPES, VMWARE, OURS)):
            return _harmless(str(value))
    return None


def _harmless(text: str) -> str:
    """Trimmed, and without the control characters that XML allows and terminals obey."""
    return _CONTROLS.sub(" ", text).strip()


def flag(element: etree._Element, name: str, *, usual: bool) -> bool:
    """A boolean attribute.

    Raises:
        OvfError: it is neither true nor false.

    """
    told = attribute(element, name)
    if told is None:
        return usual
    return parse_flag(told, name)


def parse_flag(text: str, what: str) -> bool:
    """``true`` or ``false`` as XML and VMware write them."""
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise OvfError(f"The descriptor says {text[:60]!r} for {what}, which is neither true nor false.")
