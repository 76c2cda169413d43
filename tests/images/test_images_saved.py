"""The header of libvirt's save files: what is written reads back, and whatever is not known is refused."""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.domain import Accelerator, Domain, Forward, Mark, find_mark, render_domain
from images.errors import SavedStateError
from images.saved import MAGIC, Saved, read_saved, render_copy, render_saved
from images.uplink import Uplink, UplinkKind

HEAD = 92
STREAM = b"QEVM\0\0\0\3and so on"
OLD = Domain(
    name="template", uuid="8e3a6c1e-7d0b-4f3e-9d0a-1f2e3d4c5b6a", mark=Mark("owner", "mark-old", "template:1"), memory_mib=768, cpus=1,
    accelerator=Accelerator.TCG, disk=Path("/m/old/disk.qcow2"), kernel=Path("/i/kernel"), initrd=Path("/i/initrd"),
    arguments=("root=/dev/vda", "systemd.machine_id=8e3a"), mac="52:54:00:12:34:56",
    forwards=(Forward("127.0.1.11", 8443, "10.0.2.15", 443),), console_log=Path("/m/old/console.log"),
)  # fmt: skip
NEW = replace(
    OLD, name="lab-31", uuid="11111111-2222-4333-8444-555555555555", mark=Mark("owner", "mark-new", "lab:2"),
    disk=Path("/m/new/disk.qcow2"), arguments=("root=/dev/vda", "systemd.machine_id=1111"), mac="52:54:00:aa:bb:cc",
    forwards=(Forward("127.0.1.31", 8443, "10.0.2.15", 443),), console_log=Path("/m/new/console.log"),
)  # fmt: skip
texts = st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), max_size=300)


@given(texts, st.none() | texts, st.booleans(), st.binary(max_size=50))
def test_what_is_written_reads_back(xml: str, cookie: str | None, was_running: bool, rest: bytes) -> None:
    whole = render_saved(Saved(xml, cookie, was_running, 0))
    source = io.BytesIO(whole + b"QEVM" + rest)
    assert read_saved(source) == Saved(xml, cookie, was_running, len(whole))
    assert source.read() == b"QEVM" + rest


@given(st.integers(0, 65536))
def test_libvirts_own_padding_is_understood(zeros: int) -> None:
    whole = bytearray(render_saved(Saved("<domain/>", "<cookie/>", was_running=True, start=0)))
    struct.pack_into("=I", whole, 20, len(whole) - HEAD + zeros)
    source = io.BytesIO(bytes(whole) + bytes(zeros) + STREAM)
    assert read_saved(source).start == len(whole) + zeros
    assert source.read() == STREAM


@given(st.integers(0, HEAD - 1), st.integers(1, 255))
def test_a_header_with_any_byte_changed_is_refused_or_says_only_that_the_machine_was_paused(at: int, change: int) -> None:
    good = Saved("<domain/>", "<cookie/>", was_running=True, start=0)
    whole = bytearray(render_saved(good) + STREAM)
    whole[at] ^= change
    try:
        read = read_saved(io.BytesIO(bytes(whole)))
    except SavedStateError:
        return
    assert at == 24
    assert read == replace(good, was_running=False, start=read.start)


@given(st.binary(max_size=300))
def test_what_is_no_saved_state_is_refused(content: bytes) -> None:
    with pytest.raises(SavedStateError):
        read_saved(io.BytesIO(content))
    with pytest.raises(SavedStateError):
        read_saved(io.BytesIO(MAGIC + content))


@given(st.integers(0, 200))
def test_a_file_that_was_cut_short_is_refused(length: int) -> None:
    whole = render_saved(Saved("<domain/>" * 10, "<cookie/>", was_running=True, start=0)) + STREAM
    with pytest.raises(SavedStateError):
        read_saved(io.BytesIO(whole[: min(length, len(whole) - len(STREAM) + 3)]))


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [(16, 3, "version is 3"), (16, 0x02000000, "version"), (28, 1, "compressed"), (24, 2, "neither"), (20, 0, "length"), (32, 5, "cookie"),
     (40, 1, "reserved"), (20, 0x7FFFFFFF, "length")],
)  # fmt: skip
def test_a_form_that_is_not_known_is_named(field: int, value: int, why: str) -> None:
    whole = bytearray(render_saved(Saved("<domain/>", "<cookie/>", was_running=True, start=0)) + STREAM)
    struct.pack_into("=I", whole, field, value)
    with pytest.raises(SavedStateError, match=why):
        read_saved(io.BytesIO(bytes(whole)))


def test_a_file_that_libvirt_did_not_finish_is_refused() -> None:
    whole = render_saved(Saved("<domain/>", None, was_running=True, start=0)) + STREAM
    with pytest.raises(SavedStateError):
        read_saved(io.BytesIO(whole.replace(MAGIC, b"LibvirtQemudPart")))


def test_a_text_with_a_nul_cannot_be_written() -> None:
    with pytest.raises(SavedStateError):
        render_saved(Saved("<domain/>\0<domain/>", None, was_running=True, start=0))


def test_a_copy_has_nothing_of_the_template_but_its_devices() -> None:
    saved = render_domain(OLD).replace(
        "</channel>", "<source mode='bind' path='/run/template/agent.sock'/><address type='virtio-serial' port='1'/></channel>", 1
    )
    copy = render_copy(saved, NEW)
    root = ET.fromstring(copy)
    assert (root.findtext("name"), root.findtext("uuid"), root.findtext("genid")) == (NEW.name, NEW.uuid, NEW.uuid)
    assert find_mark(copy) == NEW.mark
    for old in (OLD.name, OLD.uuid, OLD.mac, "/m/old/", "127.0.1.11", "mark-old", "agent.sock"):
        assert old not in copy
    for new in ("/m/new/disk.qcow2", "/m/new/console.log", NEW.mac, "127.0.1.31:8443", "dhcpstart=10.0.2.14"):
        assert new in copy
    assert root.find("devices/channel/address").attrib == {"type": "virtio-serial", "port": "1"}


@pytest.mark.parametrize(
    "xml",
    ["", "no xml", "<network/>", "<domain/>", render_domain(OLD).replace("<genid>", "<other>").replace("</genid>", "</other>"),
     render_domain(OLD).replace("<disk ", "<disk type='file'><source file='/x'/></disk><disk ", 1)],
)  # fmt: skip
def test_a_domain_that_is_not_shaped_like_ours_is_refused(xml: str) -> None:
    with pytest.raises(SavedStateError):
        render_copy(xml, NEW)


def test_a_text_for_a_room_fills_it_and_one_that_does_not_fit_is_refused() -> None:
    saved = Saved("<domain/>", "<cookie/>", was_running=True, start=0)
    plain = len(render_saved(saved))
    for room in (plain, plain + 4096):
        whole = render_saved(saved, room=room)
        assert len(whole) == room
        assert read_saved(io.BytesIO(whole + STREAM)) == replace(saved, start=room)
    with pytest.raises(SavedStateError, match="has room for"):
        render_saved(saved, room=plain - 1)


@pytest.mark.parametrize("kind", list(UplinkKind))
def test_a_card_on_a_network_takes_its_own_address_and_name_and_nothing_of_the_saved_ones_port(kind: UplinkKind) -> None:
    old, port = replace(OLD, forwards=(), uplink=Uplink(kind, "old-net")), ' bridge="virbr7"' if kind is UplinkKind.NETWORK else ""
    saved = render_domain(old).replace(
        f'<source {kind.value}="old-net" />',
        f'<source {kind.value}="old-net" portid="8e3a"{port} /><target dev="vnet7" /><address type="pci" slot="0x02" />',
    )
    assert "vnet7" in saved
    card = ET.fromstring(render_copy(saved, replace(NEW, forwards=(), uplink=Uplink(kind, "new-net")))).find("devices/interface")
    assert card is not None
    told = {(one.tag, *one.attrib.items()) for one in card}
    assert told == {
        ("mac", ("address", NEW.mac)), ("source", (kind.value, "new-net")), ("model", ("type", "virtio")),
        ("address", ("type", "pci"), ("slot", "0x02")),
    }  # fmt: skip


def test_a_card_is_not_moved_from_one_kind_of_wire_to_another() -> None:
    network, bridge = (replace(OLD, forwards=(), uplink=Uplink(kind, "wire")) for kind in (UplinkKind.NETWORK, UplinkKind.BRIDGE))
    for mine, theirs in ((network, bridge), (network, OLD), (OLD, network)):
        with pytest.raises(SavedStateError):
            render_copy(render_domain(mine), theirs)
