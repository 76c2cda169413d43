"""The file into which libvirt's QEMU driver saves a machine: its header read, checked and written anew for a copy of the machine.

libvirt refuses to restore under another name or UUID than the saved one, so a copy gets a header of its own in front of the same stream.
The format is internal to libvirt; version 2 is what releases since 2018 write. Whatever is not exactly as described here is refused::

    offset  bytes
    0       16     LibvirtQemudSave (LibvirtQemudPart while it is being written)
    16      4      version, in the order of bytes of this computer
    20      4      length of the text that follows the header
    24      4      1: the machine ran when it was saved; 0: it was paused
    28      4      how the stream is compressed; 0: not
    32      4      where in the text the cookie begins; 0: there is none
    36      56     zeros
    92      …      the domain's XML, NUL, the cookie's XML, NUL, padding of zeros; then QEMU's migration stream
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import BinaryIO
from xml.etree import ElementTree as ET

from images.domain import QEMU_NAMESPACE, Domain, render_domain
from images.errors import SavedStateError

_HEADER = struct.Struct("=16s5I56s")
MAGIC, VERSION, STREAM_MAGIC = b"LibvirtQemudSave", 2, b"QEVM"
BEFORE_FIRST = "10.0.2.14"
COLD = "Machines are booted cold instead."
MOST_TEXT = 1 << 22  # bytes; what a machine of ours has is some thousand


@dataclass(frozen=True)
class Saved:
    """What stands before the stream. ``start``: the offset of the stream in the file, in bytes."""

    xml: str
    cookie: str | None
    was_running: bool
    start: int


def read_saved(source: BinaryIO) -> Saved:
    """What the file says of the machine; ``source`` is left at the stream.

    Raises:
        SavedStateError: it is no saved state, or of a form that is not known.

    """
    head = source.read(_HEADER.size)
    if len(head) != _HEADER.size:
        raise _unknown("it is too short")
    magic, version, length, running, compressed, cookie_at, unused = _HEADER.unpack(head)
    faults = {
        "its first bytes are others": magic != MAGIC,
        f"its version is {version}": version != VERSION,
        "it is compressed": compressed != 0,
        "its state is neither running nor paused": running not in (0, 1),
        "it uses fields that were reserved": any(unused),
        "its text has an impossible length": not 0 < length <= MOST_TEXT,
    }
    for fault, found in faults.items():
        if found:
            raise _unknown(fault)
    text = source.read(length)
    if len(text) != length or source.read(len(STREAM_MAGIC)) != STREAM_MAGIC:
        raise _unknown("QEMU's stream does not follow its text")
    source.seek(_HEADER.size + length)
    xml, cookie = _split(text, cookie_at)
    return Saved(xml, cookie, bool(running), _HEADER.size + length)


def render_saved(saved: Saved, *, room: int | None = None) -> bytes:
    """The bytes that stand before the stream; the stream follows at once, however long the text is (``saved.start`` does not count).

    ``room``: exactly so many bytes, the text padded with zeros as libvirt itself does, so that the stream of a file may stay where it is.

    Raises:
        SavedStateError: the text cannot be written, or does not fit into ``room``.

    """
    text = saved.xml.encode() + b"\0"
    cookie_at = len(text) if saved.cookie is not None else 0
    if saved.cookie is not None:
        text += saved.cookie.encode() + b"\0"
    if len(text) > MOST_TEXT or text.count(b"\0") != 1 + (saved.cookie is not None):
        raise _unknown("its new text could not be read back")
    length = len(text) if room is None else room - _HEADER.size
    if len(text) > length:
        raise SavedStateError(f"The saved state has room for {length} bytes of text, and its new text has {len(text)}.", hint=COLD)
    return _HEADER.pack(MAGIC, VERSION, length, int(saved.was_running), 0, cookie_at, bytes(56)) + text.ljust(length, b"\0")


def render_copy(xml: str, domain: Domain) -> str:
    """The saved domain's XML for ``domain``, a copy of it: other names, files and addresses, all devices where they were.

    Raises:
        SavedStateError: the XML has not the shape of a machine of ours.

    """
    # QEMU's user networking carries its leases along: the copy is the second to ask, and shall get what the first had.
    root, own = _parse(xml), _parse(render_domain(replace(domain, first_lease=BEFORE_FIRST)))
    for path in ("name", "uuid", "genid", "os/cmdline"):
        _one(root, path).text = _one(own, path).text
    commandline = f"{{{QEMU_NAMESPACE}}}commandline"  # none where all its cards are libvirt's
    for path in ("metadata", commandline) if root.find(commandline) is not None or own.find(commandline) is not None else ("metadata",):
        old = _one(root, path)
        root[list(root).index(old)] = _one(own, path)
    if root.find("devices/interface") is not None or own.find("devices/interface") is not None:
        _move_card(_one(root, "devices/interface"), _one(own, "devices/interface"))
    disk = _one(root, "devices/disk")
    _one(disk, "source").attrib.update({"file": str(domain.disk)})
    for left in disk.findall("backingStore"):
        disk.remove(left)
    for log in root.findall("devices/*/log"):
        log.set("file", str(domain.console_log))
    for channel in root.findall("devices/channel"):
        for left in channel.findall("source"):  # libvirt chooses the socket's path by the domain's name
            channel.remove(left)
    return ET.tostring(root, encoding="unicode")


def _move_card(card: ET.Element, own: ET.Element) -> None:
    """The card stays where it is; its address and what it hangs on are its own, and libvirt makes its end of the cable anew."""
    if card.get("type") != own.get("type"):
        raise _unknown(f"its card hangs on a {card.get('type')} where it shall hang on a {own.get('type')}")
    _one(card, "mac").set("address", _one(own, "mac").get("address", ""))
    source = _one(card, "source")
    source.attrib.clear()  # with the name, libvirt's facts of the port that it had
    source.attrib.update(_one(own, "source").attrib)
    for left in card.findall("target"):
        card.remove(left)


def _split(text: bytes, cookie_at: int) -> tuple[str, str | None]:
    xml, nul, rest = text.partition(b"\0")
    cookie: bytes | None = None
    if cookie_at:
        if cookie_at != len(xml) + 1:
            raise _unknown("its cookie stands somewhere else")
        cookie, nul, rest = rest.partition(b"\0")
    if not nul or rest.strip(b"\0"):
        raise _unknown("its text does not end where it should")
    try:
        return xml.decode(), None if cookie is None else cookie.decode()
    except UnicodeDecodeError as error:
        raise _unknown("its text is not UTF-8") from error


def _parse(xml: str) -> ET.Element:
    try:
        root = ET.fromstring(xml)  # noqa: S314 - libvirt's own output, in a file that only we may write
    except ET.ParseError as error:
        raise _unknown("its text is no XML") from error
    if root.tag != "domain":
        raise _unknown("its text describes no domain")
    return root


def _one(node: ET.Element, path: str) -> ET.Element:
    found = node.findall(path)
    if len(found) != 1:
        raise _unknown(f"it has {len(found)} times {path.rpartition('}')[2]} where a machine of ours has it once")
    return found[0]


def _unknown(fault: str) -> SavedStateError:
    return SavedStateError(f"The saved state is of a form that is not known: {fault}.", hint=COLD)
