"""The domain XML, against golden files, and what must never get into it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from images.domain import Accelerator, Domain, Forward, Mark, find_mark, render_domain
from images.errors import SpecError
from images.segment import SPARE
from images.uplink import Uplink, UplinkKind

GOLDEN = Path(__file__).parent / "golden"
DOMAIN = Domain(
    name="old",
    uuid="8e3a6c1e-7d0b-4f3e-9d0a-1f2e3d4c5b6a",
    mark=Mark("0f0e0d0c-1111-4222-8333-444455556666", "99999999-aaaa-4bbb-8ccc-ddddeeeeffff", "request 1"),
    memory_mib=768,
    cpus=2,
    accelerator=Accelerator.TCG,
    disk=Path("/var/lib/boxshift/machines/8e3a/disk.qcow2"),
    kernel=Path("/var/lib/boxshift/images/abc/kernel"),
    initrd=Path("/var/lib/boxshift/images/abc/initrd"),
    arguments=("root=/dev/vda", "rw", "console=ttyS0"),
    mac="52:54:00:12:34:56",
    forwards=(Forward("127.0.1.11", 8443, "10.0.2.15", 443), Forward("127.0.0.11", 8443, "10.0.2.20", 443)),
    console_log=Path("/var/lib/boxshift/machines/8e3a/console.log"),
)


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("emulated", DOMAIN),
        ("kvm", replace(DOMAIN, accelerator=Accelerator.KVM)),
        ("no-forwards", replace(DOMAIN, forwards=())),
        ("network", replace(DOMAIN, forwards=(), uplink=Uplink(UplinkKind.NETWORK, "default"))),
        ("bridge", replace(DOMAIN, forwards=(), uplink=Uplink(UplinkKind.BRIDGE, "br0"), segments=(SPARE,))),
    ],
)
def test_the_xml_is_the_golden_one(name: str, domain: Domain) -> None:
    assert render_domain(domain) == (GOLDEN / f"{name}.xml").read_text()


def test_the_mark_reads_back_as_it_was_written() -> None:
    assert find_mark(render_domain(DOMAIN)) == DOMAIN.mark


def test_hostile_values_stay_values(hostile_password: str) -> None:
    domain = replace(DOMAIN, mark=replace(DOMAIN.mark, request=f"</metadata>{hostile_password}&amp;"), arguments=("a=<b>&",))
    xml = render_domain(domain)
    assert find_mark(xml) == domain.mark
    assert ET.fromstring(xml).findtext("os/cmdline") == "a=<b>&"


@pytest.mark.parametrize(
    "metadata",
    ["", "<metadata/>", '<metadata><m:machine xmlns:m="urn:boxshift:machine:1" owner="" mark="x" request="y"/></metadata>',
     '<metadata><m:machine xmlns:m="urn:someone:else" owner="a" mark="x" request="y"/></metadata>'],
)  # fmt: skip
def test_a_domain_without_a_whole_mark_has_none(metadata: str) -> None:
    assert find_mark(f"<domain><name>x</name>{metadata}</domain>") is None


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "", "localhost", "::1", "127.0.0.1,hostfwd=tcp::22-:22"])
def test_a_forward_that_is_not_on_loopback_is_refused(host: str) -> None:
    with pytest.raises(SpecError):
        Forward(host, 8443, "10.0.2.15", 443)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_out_of_range_is_refused(port: int) -> None:
    with pytest.raises(SpecError):
        Forward("127.0.0.11", port, "10.0.2.15", 443)
    with pytest.raises(SpecError):
        Forward("127.0.0.11", 443, "10.0.2.15", port)
